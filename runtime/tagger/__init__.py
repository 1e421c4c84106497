"""The tagger, and the bank that it scores with now."""

"""A source through a tagger: frames in, moments out."""

"""The whole line on the toy world, and its page."""

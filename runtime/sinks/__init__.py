"""Where results go; every sink has `write`, `close` and is a context manager."""

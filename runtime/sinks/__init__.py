"""Where results go: one module per output format, and the person at the terminal."""

"""What tells the user how things are: verify, doctor, compare-banks."""

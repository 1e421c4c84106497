"""Times and watts: what `--profile` and `taidpt bench` print."""

"""The work behind `taidpt tag`."""

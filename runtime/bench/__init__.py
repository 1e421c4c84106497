"""The work behind `taidpt bench`."""

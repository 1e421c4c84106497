"""The work of `taidpt adapt`."""

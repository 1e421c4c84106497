"""Programs that `taidpt bench` runs in a process of their own."""

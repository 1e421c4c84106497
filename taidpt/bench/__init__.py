"""Programs that `taidpt bench` starts in a process of their own."""

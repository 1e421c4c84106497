"""What runs the graph; every backend has the interface of `base.Backend`."""

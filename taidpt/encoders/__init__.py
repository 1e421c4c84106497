"""Image towers with a local branch: one module per kind of tower."""

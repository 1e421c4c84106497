"""Image towers with a local branch: one module a kind of tower."""

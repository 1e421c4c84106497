"""The reference result, what a device computes, and how far apart they are."""

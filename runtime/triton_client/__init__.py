"""A model of a Triton Inference Server in place of a bundle on this machine."""

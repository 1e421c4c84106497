"""A model of a Triton Inference Server in place of a bundle on this machine."""

__all__ = ["SCHEME"]

# Addresses of models. Here, because a tagger loads the client itself only for one of them.
SCHEME = "triton://"

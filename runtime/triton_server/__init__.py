"""A bundle as a model repository of Triton Inference Server, and what runs inside the server."""

"""What runs the graph; every backend has the interface of `base.Backend`."""

__all__ = ["AUTO", "DEVICES"]

# What "auto" tries, the best first. "ort-tensorrt" builds for minutes when it first meets a
# graph, so it is taken only by name.
AUTO = ("tensorrt", "tensorrt-rtx", "cuda", "cpu")
DEVICES = ("auto", *AUTO, "ort-tensorrt")

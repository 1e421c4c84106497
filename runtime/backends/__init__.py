"""Inference backends: ONNX Runtime and TensorRT behind the interface `base.Backend`."""

__all__ = ["AUTO", "DEVICES"]

# The order in which "auto" tries devices, fastest first. "ort-tensorrt" is not among them: it
# builds an engine for minutes when it first loads a graph.
AUTO = ("tensorrt", "tensorrt-rtx", "cuda", "cpu")
DEVICES = ("auto", *AUTO, "ort-tensorrt")

"""ONNX graphs: encoder, head, resize, files with large weights."""

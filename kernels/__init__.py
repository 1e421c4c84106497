"""Operators of the tagger, each one in every form: PyTorch, Triton, ONNX, C, TensorRT.

This room imports nothing of the others and raises built-in exceptions.
"""

from __future__ import annotations

__all__: list[str] = []

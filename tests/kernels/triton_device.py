"""Where the Triton kernels run in tests: on the GPU, or in Triton's interpreter on the CPU."""

from __future__ import annotations

import os

import torch

__all__ = ["DEVICE", "INTERPRETED"]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

if not INTERPRETED and not torch.cuda.is_available():
    raise RuntimeError("no GPU: run tests/kernels/test_triton.py, which uses the interpreter")

"""Inputs and tolerances that the operator's tests share."""

from __future__ import annotations

from typing import NamedTuple

import torch

from taidpt.kernels.local_similarity.inputs import Inputs

__all__ = ["TOLERANCES", "Case", "make_inputs"]

# (operator, type, backend) -> (atol, rtol). Similarities of unit rows lie in [-1, 1].
# Half-precision rows are compared with the definition run on the same rounded values, so what is
# left is the rounding of x̂ to half precision (2^-11, 2^-8) before the dot product, times τ.
TOLERANCES = {
    ("forward", torch.float64, "chunked"): (1e-12, 1e-12),
    ("forward", torch.float32, "chunked"): (1e-5, 1e-5),
    ("backward", torch.float64, "chunked"): (1e-10, 1e-10),
    ("forward", torch.float32, "onnxruntime"): (1e-5, 1e-5),
    # products of half-precision factors are exact in fp32, and rows are scaled after the product
    ("forward", torch.float32, "triton"): (1e-5, 1e-5),
    ("forward", torch.float16, "triton"): (1e-5, 1e-5),
    ("forward", torch.bfloat16, "triton"): (1e-5, 1e-5),
    # relative to the gradient's norm: the weights' gradient is rounded to the patches' type
    ("backward", torch.float32, "triton"): (1e-5, 0.0),
    ("backward", torch.float16, "triton"): (1e-3, 0.0),
    ("backward", torch.bfloat16, "triton"): (8e-3, 0.0),
}


class Case(NamedTuple):
    """Sizes and options of one case."""

    batch: int
    patches: int
    classes: int
    dim: int
    dtype: torch.dtype = torch.float32
    masked: bool = False
    valued: bool = False
    temperature: float = 40.0


def make_inputs(case: Case, seed: int = 0, requires_grad: bool = False) -> Inputs:
    """Random patches of uneven length, unit class rows; with a mask, image 0 has no patch."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    patches = normal(case.batch, case.patches, case.dim)
    # some alignment with a class, so that the softmax is neither flat nor one-hot everywhere
    bank = torch.nn.functional.normalize(normal(case.classes, case.dim), dim=-1)
    chosen = torch.randint(case.classes, (case.batch, case.patches), generator=generator)
    patches = (patches + 0.1 * case.dim**0.5 * bank[chosen]) * (1 + normal(1).abs())
    mask = None
    if case.masked:
        mask = torch.rand(case.batch, case.patches, generator=generator) > 0.4
        mask[0] = False
    tensors = [patches, bank, normal(case.classes, case.dim) if case.valued else None]
    typed = [None if tensor is None else tensor.to(case.dtype) for tensor in tensors]
    for tensor in typed:
        if tensor is not None:
            tensor.requires_grad_(requires_grad)
    assert typed[0] is not None
    assert typed[1] is not None
    return Inputs(typed[0], typed[1], case.temperature, mask, typed[2])

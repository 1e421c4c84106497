"""The second read-out in Triton: two kernels and their launch.

The first measures each patch, walks the classes and keeps the log of their softmax's denominator,
the second walks the patches of each class and keeps the largest share. Each multiplies all patches
with all classes once; `[B, P, C]` is never written. The ahead-of-time compiler takes both kernels
too. Compiled for GPUs, checked in the interpreter, not run on a GPU.
"""

# A kernel's arguments have Triton's types, which Python annotations do not name.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from taidpt.kernels.local_similarity.inputs import Inputs
from taidpt.kernels.local_similarity.triton_operands import (
    architecture_of,
    element_type,
    kernel_type,
    launch,
    on_device_of,
    precision,
)
from taidpt.kernels.local_similarity.triton_tile import FLOOR_SQUARED, LOG2_E, dot_tile

__all__ = ["Blocks", "best_patch_kernel", "launch_competing", "patch_total_kernel"]


class Blocks(NamedTuple):
    """A tile of both kernels: class rows, patches, and columns loaded at once."""

    classes: int = 64
    patches: int = 64
    dim: int = 32
    warps: int = 4
    stages: int = 2


@triton.jit
def _logits(
    x_rows,
    bank_rows,
    inverse,
    temperature,
    D,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN_D: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Logits of a tile in powers of two, [BLOCK_C, BLOCK_P]."""
    products, _, _ = dot_tile(
        x_rows,
        bank_rows,
        bank_rows,
        D,
        BLOCK_C,
        BLOCK_P,
        BLOCK_D,
        EVEN_D,
        False,
        False,
        False,
        DTYPE,
        PRECISION,
    )
    return products * (inverse * (temperature * LOG2_E))[None, :]


@triton.jit
def _inverse_lengths(x_rows, D, BLOCK_P: tl.constexpr, BLOCK_D: tl.constexpr):
    """1 / max(|x|, floor) of a block's patches, [BLOCK_P]."""
    squares = tl.zeros((BLOCK_P,), tl.float32)
    for start in range(0, D, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D)
        inside = (column < D)[None, :]
        x = tl.load(x_rows[:, None] + column[None, :], mask=inside, other=0.0).to(tl.float32)
        squares += tl.sum(x * x, axis=1)
    return 1.0 / tl.sqrt(tl.maximum(squares, FLOOR_SQUARED))


@triton.jit(do_not_specialize=["P", "C", "temperature"])
def patch_total_kernel(
    x_ptr,
    bank_ptr,
    inverse_ptr,
    total_ptr,
    stride_image,
    stride_patch,
    stride_bank,
    P,
    C,
    D,
    temperature,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN_D: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """1 / |x| and log2 of the sum over classes of 2^logit, each [B, P]; grid (patch blocks, B)."""
    image = tl.program_id(1).to(tl.int64)
    lane = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    patch = tl.minimum(lane, P - 1)
    x_rows = x_ptr + image * stride_image + patch * stride_patch
    inverse = _inverse_lengths(x_rows, D, BLOCK_P, BLOCK_D)
    tl.store(inverse_ptr + image * P + lane, inverse, mask=lane < P)
    peak = tl.full((BLOCK_P,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_P,), tl.float32)
    for first in range(0, C, BLOCK_C):
        row = first + tl.arange(0, BLOCK_C)
        bank_rows = bank_ptr + tl.minimum(row, C - 1).to(tl.int64) * stride_bank
        logits = _logits(
            x_rows,
            bank_rows,
            inverse,
            temperature,
            D,
            BLOCK_C,
            BLOCK_P,
            BLOCK_D,
            EVEN_D,
            DTYPE,
            PRECISION,
        )
        logits = tl.where((row < C)[:, None], logits, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(logits, axis=0))
        total = total * tl.exp2(peak - new_peak)
        total += tl.sum(tl.exp2(logits - new_peak[None, :]), axis=0)
        peak = new_peak
    tl.store(total_ptr + image * P + lane, peak + tl.log2(total), mask=lane < P)


@triton.jit(do_not_specialize=["use_mask", "P", "C", "temperature"])
def best_patch_kernel(
    x_ptr,
    bank_ptr,
    mask_ptr,
    inverse_ptr,
    total_ptr,
    out_ptr,
    stride_image,
    stride_patch,
    stride_bank,
    use_mask,
    P,
    C,
    D,
    temperature,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN_D: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The largest share over an image's patches, [B, C]; grid (class blocks, B)."""
    image = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    bank_rows = bank_ptr + tl.minimum(row, C - 1).to(tl.int64) * stride_bank
    best = tl.full((BLOCK_C,), float("-inf"), tl.float32)
    for first in range(0, P, BLOCK_P):
        lane = first + tl.arange(0, BLOCK_P)
        patch = tl.minimum(lane, P - 1)
        logits = _logits(
            x_ptr + image * stride_image + patch * stride_patch,
            bank_rows,
            tl.load(inverse_ptr + image * P + patch),
            temperature,
            D,
            BLOCK_C,
            BLOCK_P,
            BLOCK_D,
            EVEN_D,
            DTYPE,
            PRECISION,
        )
        share = logits - tl.load(total_ptr + image * P + patch)[None, :]
        seen = lane < P
        if mask_ptr is not None:
            # use_mask is 0 or 1: one compiled kernel serves calls with a mask and without
            inside = lane < P * use_mask
            seen = seen & (tl.load(mask_ptr + image * P + lane, mask=inside, other=1) != 0)
        best = tl.maximum(best, tl.max(tl.where(seen[None, :], share, float("-inf")), axis=1))
    tl.store(out_ptr + image * C + row, tl.exp2(best), mask=row < C)


def launch_competing(operands: Inputs, blocks: Blocks | None = None) -> torch.Tensor:
    """Shares [B, C] float32 of operands as `prepared` makes them."""
    patches, bank, temperature, mask, _ = operands
    (B, P, D), C = patches.shape, bank.shape[0]
    result = patches.new_empty((B, C), dtype=torch.float32)
    if result.numel() == 0:
        return result
    blocks = blocks or Blocks()
    dtype = element_type(patches, bank)
    strides = patches.stride(0), patches.stride(1), bank.stride(0)
    sizes = P, C, D, temperature
    constants = {
        "BLOCK_C": blocks.classes,
        "BLOCK_P": blocks.patches,
        "BLOCK_D": blocks.dim,
        "EVEN_D": D % blocks.dim == 0,
        "DTYPE": kernel_type(dtype),
        "PRECISION": precision(dtype, architecture_of(patches)),
        "num_warps": blocks.warps,
        "num_stages": blocks.stages,
    }
    with on_device_of(patches):
        state = patches.new_empty((2, B, P), dtype=torch.float32)  # 1 / |x|, log2 of the totals
        grid = (triton.cdiv(P, blocks.patches), B)
        launch(patch_total_kernel, grid, patches, bank, *state, *strides, *sizes, **constants)
        grid = (triton.cdiv(C, blocks.classes), B)
        rows = (patches, bank, mask, *state, result, *strides)
        launch(best_patch_kernel, grid, *rows, int(mask is not None), *sizes, **constants)
    return result

"""The product of class rows and patch rows, a tile at a time: what the kernels are built on."""

# A kernel's arguments have Triton's types, which Python annotations do not name.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["FLOOR_SQUARED", "LOG2_E", "dot_tile"]

LOG2_E = tl.constexpr(1.4426950408889634)
# the square of naive.NORM_FLOOR
FLOOR_SQUARED = tl.constexpr(1e-24)


@triton.jit
def _load(pointers, inside, WHOLE: tl.constexpr):
    """Without a mask where the tile surely lies inside: then wide asynchronous copies are used."""
    if WHOLE:
        return tl.load(pointers)
    else:  # noqa: RET505  the compiler takes one return a branch
        return tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def dot_tile(
    x_rows,
    bank_rows,
    value_rows,
    D,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN_D: tl.constexpr,
    HAS_VALUES: tl.constexpr,
    FUSE_LENGTH: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Raw products [BLOCK_C, BLOCK_N] of class rows and patch rows, and the patches' squares."""
    offsets = tl.arange(0, BLOCK_D)
    products = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
    weighed = tl.zeros((BLOCK_C, BLOCK_N), tl.float32) if HAS_VALUES else products
    squares = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, D, BLOCK_D):
        column = start + offsets
        inside = column < D
        x = _load(x_rows[None, :] + column[:, None], inside[:, None], EVEN_D).to(DTYPE)
        t = _load(bank_rows[:, None] + column[None, :], inside[None, :], EVEN_D)
        products = tl.dot(t.to(DTYPE), x, products, input_precision=PRECISION)
        if HAS_VALUES:
            v = _load(value_rows[:, None] + column[None, :], inside[None, :], EVEN_D)
            weighed = tl.dot(v.to(DTYPE), x, weighed, input_precision=PRECISION)
        if FUSE_LENGTH:
            wide = x.to(tl.float32)
            squares += tl.sum(wide * wide, axis=0)
    return products, weighed, squares

"""What the kernels are built on: products, a tile at a time, and a softmax's state → a score."""

# A kernel's arguments have Triton's types, which Python annotations do not name.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["FLOOR_SQUARED", "LOG2_E", "combine_kernel", "dot_tile", "store_scores"]

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
    READ_AGAIN: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Raw products [BLOCK_C, BLOCK_N] of class rows and patch rows, and the patches' squares.

    READ_AGAIN: squares come of a load of their own (`tiles.reads_again` says why).
    """
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
            if READ_AGAIN:
                # turned round, so that the compiler does not join it with the product's load
                again = _load(x_rows[:, None] + column[None, :], inside[None, :], EVEN_D)
                wide = again.to(DTYPE).to(tl.float32)
                squares += tl.sum(wide * wide, axis=1)
            else:
                wide = x.to(tl.float32)
                squares += tl.sum(wide * wide, axis=0)
    return products, weighed, squares


@triton.jit
def store_scores(
    out_ptr,
    log_sum_ptr,
    global_ptr,
    scale_ptr,
    bias_ptr,
    merge_weight,
    place,
    classes,
    inside,
    peak,
    total,
    summed,
):
    """Finish the softmax; merge with the global score, scale and shift where asked to.

    `peak` is the largest logit in powers of two, `total` and `summed` are relative to it.
    """
    some = total > 0.0
    result = tl.where(some, summed / tl.where(some, total, 1.0), 0.0)
    if log_sum_ptr is not None:
        log_sum = tl.where(some, peak / LOG2_E + tl.log(total), float("inf"))
        tl.store(log_sum_ptr + place, log_sum, mask=inside)
    if global_ptr is not None:
        whole = tl.load(global_ptr + place, mask=inside, other=0.0).to(tl.float32)
        result = whole + merge_weight * (result - whole)
    if scale_ptr is not None:
        scale = tl.load(scale_ptr + classes, mask=inside, other=0.0)
        bias = tl.load(bias_ptr + classes, mask=inside, other=0.0)
        result = result * scale + bias
    tl.store(out_ptr + place, result, mask=inside)


@triton.jit(do_not_specialize=["B", "C", "merge_weight"])
def combine_kernel(
    part_ptr,
    best_part_ptr,
    out_ptr,
    log_sum_ptr,
    best_ptr,
    global_ptr,
    scale_ptr,
    bias_ptr,
    B,
    C,
    merge_weight,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Join the splits' softmax states and finish; grid (blocks of B x C,)."""
    layer = B.to(tl.int64) * C
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < layer
    peak = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    summed = tl.zeros((BLOCK,), tl.float32)
    best = tl.full((BLOCK,), -1, tl.int32)
    for split in range(SPLITS):
        part = part_ptr + split * layer + place
        other_peak = tl.load(part, mask=inside, other=float("-inf"))
        other_total = tl.load(part + SPLITS * layer, mask=inside, other=0.0)
        other_sum = tl.load(part + 2 * SPLITS * layer, mask=inside, other=0.0)
        if best_ptr is not None:
            other_best = tl.load(best_part_ptr + split * layer + place, mask=inside, other=-1)
            best = tl.where(other_peak > peak, other_best, best)
        new_peak = tl.maximum(peak, other_peak)
        anchor = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        fade = tl.exp2(peak - anchor)
        other_fade = tl.exp2(other_peak - anchor)
        total = total * fade + other_total * other_fade
        summed = summed * fade + other_sum * other_fade
        peak = new_peak
    if best_ptr is not None:
        tl.store(best_ptr + place, best, mask=inside)
    store_scores(
        out_ptr,
        log_sum_ptr,
        global_ptr,
        scale_ptr,
        bias_ptr,
        merge_weight,
        place,
        place % C,
        inside,
        peak,
        total,
        summed,
    )

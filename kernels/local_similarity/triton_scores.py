"""From a softmax's state to a score: the last step of the forward kernel, and of joined splits."""

# A kernel's arguments have Triton's types, which Python annotations do not name.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from taidpt.kernels.local_similarity.triton_tile import LOG2_E

__all__ = ["combine_kernel", "store_scores"]


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
    HAS_LOG_SUM: tl.constexpr,
    HAS_GLOBAL: tl.constexpr,
    HAS_AFFINE: tl.constexpr,
):
    """Finish the softmax; merge with the global score, scale and shift where asked to.

    `peak` is the largest logit in powers of two, `total` and `summed` are relative to it.
    """
    some = total > 0.0
    result = tl.where(some, summed / tl.where(some, total, 1.0), 0.0)
    if HAS_LOG_SUM:
        log_sum = tl.where(some, peak / LOG2_E + tl.log(total), float("inf"))
        tl.store(log_sum_ptr + place, log_sum, mask=inside)
    if HAS_GLOBAL:
        whole = tl.load(global_ptr + place, mask=inside, other=0.0).to(tl.float32)
        result = whole + merge_weight * (result - whole)
    if HAS_AFFINE:
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
    HAS_LOG_SUM: tl.constexpr,
    HAS_BEST: tl.constexpr,
    HAS_GLOBAL: tl.constexpr,
    HAS_AFFINE: tl.constexpr,
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
        if HAS_BEST:
            other_best = tl.load(best_part_ptr + split * layer + place, mask=inside, other=-1)
            best = tl.where(other_peak > peak, other_best, best)
        new_peak = tl.maximum(peak, other_peak)
        anchor = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        fade = tl.exp2(peak - anchor)
        other_fade = tl.exp2(other_peak - anchor)
        total = total * fade + other_total * other_fade
        summed = summed * fade + other_sum * other_fade
        peak = new_peak
    if HAS_BEST:
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
        HAS_LOG_SUM,
        HAS_GLOBAL,
        HAS_AFFINE,
    )

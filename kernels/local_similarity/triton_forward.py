"""The operator's forward kernel in Triton.

A forward program owns BLOCK_C classes of IMAGES images and walks the patches in tiles of BLOCK_P.
Classes are the M side of every product, so that the softmax over patches runs along a register
row; the state of an online softmax (peak, total, weighed sum) is all that outlives a tile, and
`[B, P, C]` is never written. The kernels are plain functions of their arguments: the launcher and
the ahead-of-time compiler choose every `constexpr`.
"""

# A kernel's arguments have Triton's types, which Python annotations do not name.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from taidpt.kernels.local_similarity.triton_tile import (
    FLOOR_SQUARED,
    LOG2_E,
    dot_tile,
    store_scores,
)

__all__ = ["forward_kernel"]

TEMPERATURE_FLOOR = tl.constexpr(1e-20)


@triton.jit
def _add_pairs(left_0, left_1, right_0, right_1):
    return left_0 + right_0, left_1 + right_1


@triton.jit
def _two_sums(first, second, JOINED: tl.constexpr):
    """Sums over the last axis. Joined, a term is dead once added: fewer registers, no spills."""
    if JOINED:
        sums = tl.reduce((first, second), 2, _add_pairs)
        return sums[0], sums[1]
    else:  # noqa: RET505  the interpreter reduces pairs one element at a time
        return tl.sum(first, axis=2), tl.sum(second, axis=2)


@triton.jit
def _fold_tile(
    x_ptr,
    bank_rows,
    value_rows,
    mask_ptr,
    inverse_ptr,
    stride_image,
    stride_patch,
    use_mask,
    first_image,
    first_patch,
    last_patch,
    factor,
    B,
    P,
    D,
    peak,
    total,
    summed,
    best,
    leads,
    IMAGES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN_D: tl.constexpr,
    EVEN_P: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_VALUES: tl.constexpr,
    HAS_BEST: tl.constexpr,
    FUSE_LENGTH: tl.constexpr,
    READ_AGAIN: tl.constexpr,
    JOINED_SUMS: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of BLOCK_P patches of each image into the online softmax's state.

    Logits are kept in powers of two: one multiplication a product makes them of it, one addition
    and one exp2 make the weight. `summed` of similarities is in the same unit until the end.
    """
    BLOCK_N: tl.constexpr = IMAGES * BLOCK_P
    row = tl.arange(0, BLOCK_N)
    # rows outside are read from the last one inside and masked later: loads need no mask
    image = tl.minimum(first_image + row // BLOCK_P, B - 1).to(tl.int64)
    patch = tl.minimum(first_patch + row % BLOCK_P, P - 1)
    x_rows = x_ptr + image * stride_image + patch * stride_patch
    products, weighed, squares = dot_tile(
        x_rows,
        bank_rows,
        value_rows,
        D,
        BLOCK_C,
        BLOCK_N,
        BLOCK_D,
        EVEN_D,
        HAS_VALUES,
        FUSE_LENGTH,
        READ_AGAIN,
        DTYPE,
        PRECISION,
    )
    if FUSE_LENGTH:
        inverse = 1.0 / tl.sqrt(tl.maximum(squares, FLOOR_SQUARED))
        if inverse_ptr is not None:  # for a backward pass; rows outside write the last one's again
            tl.store(inverse_ptr + image * P + patch, inverse, mask=row < BLOCK_N * leads)
    else:
        inverse = tl.load(inverse_ptr + image * P + patch)
    raw = tl.reshape(products * (inverse * factor)[None, :], (BLOCK_C, IMAGES, BLOCK_P))
    if HAS_VALUES:
        counted = tl.reshape(weighed * inverse[None, :], (BLOCK_C, IMAGES, BLOCK_P))
    else:
        counted = raw
    lane = first_patch + tl.arange(0, BLOCK_P)
    logits = raw
    if not EVEN_P or HAS_MASK:
        seen = tl.broadcast_to((lane < last_patch)[None, :], (IMAGES, BLOCK_P))
        if HAS_MASK:
            owner = first_image + tl.arange(0, IMAGES)
            # use_mask is 0 or 1: one compiled kernel serves calls with a mask and without
            inside = (owner[:, None] < B) & (lane[None, :] < P * use_mask)
            place = owner[:, None].to(tl.int64) * P + lane[None, :]
            seen = seen & (tl.load(mask_ptr + place, mask=inside, other=1) != 0)
            # what lies behind the mask may be NaN, which a weight of 0 does not take away
            counted = tl.where(seen[None, :, :], counted, 0.0)
        logits = tl.where(seen[None, :, :], raw, float("-inf"))
    tile_peak = tl.max(logits, axis=2)
    if HAS_BEST:
        tile_best = tl.argmax(logits, axis=2).to(tl.int32) + first_patch
        best = tl.where(tile_peak > peak, tile_best, best)
    new_peak = tl.maximum(peak, tile_peak)
    anchor = tl.where(new_peak == float("-inf"), 0.0, new_peak)
    fade = tl.exp2(peak - anchor)
    weights = tl.exp2(logits - anchor[:, :, None])
    tile_total, tile_summed = _two_sums(weights, weights * counted, JOINED_SUMS)
    total = total * fade + tile_total
    summed = summed * fade + tile_summed
    return new_peak, total, summed, best


# Sizes of 1 or of multiples of 16 must not each compile a kernel of their own (and a constant 1 is
# no tensor); D and the strides do, since their alignment decides how wide a load is.
@triton.jit(do_not_specialize=["use_mask", "B", "P", "C", "temperature", "merge_weight"])
def forward_kernel(
    x_ptr,
    bank_ptr,
    value_ptr,
    mask_ptr,
    inverse_ptr,
    out_ptr,
    log_sum_ptr,
    best_ptr,
    part_ptr,
    global_ptr,
    scale_ptr,
    bias_ptr,
    stride_image,
    stride_patch,
    stride_bank,
    stride_value,
    use_mask,
    B,
    P,
    C,
    D,
    temperature,
    merge_weight,
    IMAGES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TAIL_1: tl.constexpr,
    TAIL_2: tl.constexpr,
    SPLITS: tl.constexpr,
    GROUP: tl.constexpr,
    EVEN_D: tl.constexpr,
    EVEN_P: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_VALUES: tl.constexpr,
    FUSE_LENGTH: tl.constexpr,
    READ_AGAIN: tl.constexpr,
    JOINED_SUMS: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Similarities (or merged scores) of BLOCK_C classes and IMAGES images, [B, C].

    Grid: (class blocks x image blocks, SPLITS). Rows of X, T and V have unit inner stride. With
    SPLITS above 1 each split writes its peak, total and sum to `part_ptr` [3, SPLITS, B, C], for
    combine_kernel. TAIL_1 and TAIL_2 are smaller tiles for what full tiles leave of P;
    EVEN_P says that full tiles never reach beyond P. With FUSE_LENGTH 1 / |x| goes to `inverse_ptr`
    where it is given; without, it is read there.
    """
    class_blocks = tl.cdiv(C, BLOCK_C)
    image_blocks = tl.cdiv(B, IMAGES)
    # GROUP image blocks share a class block while it is in L2
    program = tl.program_id(0)
    wave = program // (GROUP * class_blocks)
    group_size = tl.minimum(image_blocks - wave * GROUP, GROUP)
    inner = program % (GROUP * class_blocks)
    first_image = (wave * GROUP + inner % group_size) * IMAGES
    classes = (inner // group_size) * BLOCK_C + tl.arange(0, BLOCK_C)
    leads = (inner // group_size == 0).to(tl.int32)
    row = tl.minimum(classes, C - 1).to(tl.int64)
    bank_rows = bank_ptr + row * stride_bank
    value_rows = value_ptr + row * stride_value if HAS_VALUES else bank_rows

    peak = tl.full((BLOCK_C, IMAGES), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_C, IMAGES), tl.float32)
    summed = tl.zeros((BLOCK_C, IMAGES), tl.float32)
    best = tl.full((BLOCK_C, IMAGES), -1, tl.int32)
    # below the floor all weights are equal in fp32, but a division by it would not be exact
    factor = tl.maximum(temperature, TEMPERATURE_FLOOR) * LOG2_E

    split = tl.program_id(1)
    share = tl.cdiv(tl.cdiv(P, BLOCK_P), SPLITS) * BLOCK_P
    begin = split * share
    end = tl.minimum(begin + share, P)
    full_end = end
    if TAIL_1 > 0:
        full_end = (P // BLOCK_P) * BLOCK_P
    # full tiles, then the smaller ones
    WIDTHS: tl.constexpr = (BLOCK_P, TAIL_1, TAIL_2)
    stop = full_end
    for section in tl.static_range(3):
        start = begin if section == 0 else stop
        stop = full_end if section == 0 else start + WIDTHS[section]
        if WIDTHS[section] > 0:
            for first_patch in range(start, stop, WIDTHS[section]):
                peak, total, summed, best = _fold_tile(
                    x_ptr,
                    bank_rows,
                    value_rows,
                    mask_ptr,
                    inverse_ptr,
                    stride_image,
                    stride_patch,
                    use_mask,
                    first_image,
                    first_patch,
                    end,
                    factor,
                    B,
                    P,
                    D,
                    peak,
                    total,
                    summed,
                    best,
                    leads,
                    IMAGES,
                    BLOCK_C,
                    WIDTHS[section],
                    BLOCK_D,
                    EVEN_D,
                    EVEN_P and section == 0,
                    HAS_MASK,
                    HAS_VALUES,
                    best_ptr is not None,
                    FUSE_LENGTH,
                    READ_AGAIN,
                    JOINED_SUMS,
                    DTYPE,
                    PRECISION,
                )
    if not HAS_VALUES:
        summed /= factor
    images = (first_image + tl.arange(0, IMAGES)).to(tl.int64)
    inside = (classes[:, None] < C) & (images[None, :] < B)
    place = images[None, :] * C + classes[:, None]
    if SPLITS > 1:
        layer = B.to(tl.int64) * C
        part = part_ptr + split * layer + place
        tl.store(part, peak, mask=inside)
        tl.store(part + SPLITS * layer, total, mask=inside)
        tl.store(part + 2 * SPLITS * layer, summed, mask=inside)
        if best_ptr is not None:
            tl.store(best_ptr + split * layer + place, best, mask=inside)
    else:
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
            classes[:, None],
            inside,
            peak,
            total,
            summed,
        )

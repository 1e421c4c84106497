"""The operator's forward kernel in Triton, and the one that joins its splits over patches.

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

__all__ = ["FLOOR_SQUARED", "LOG2_E", "combine_kernel", "dot_tile", "forward_kernel"]

LOG2_E = tl.constexpr(1.4426950408889634)
# the square of naive.NORM_FLOOR
FLOOR_SQUARED = tl.constexpr(1e-24)


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
        if EVEN_D:
            x = tl.load(x_rows[None, :] + column[:, None])
            t = tl.load(bank_rows[:, None] + column[None, :])
        else:
            x = tl.load(x_rows[None, :] + column[:, None], mask=column[:, None] < D, other=0.0)
            t = tl.load(bank_rows[:, None] + column[None, :], mask=column[None, :] < D, other=0.0)
        x = x.to(DTYPE)
        products = tl.dot(t.to(DTYPE), x, products, input_precision=PRECISION)
        if HAS_VALUES:
            inside = column[None, :] < D
            v = tl.load(value_rows[:, None] + column[None, :], mask=inside, other=0.0)
            weighed = tl.dot(v.to(DTYPE), x, weighed, input_precision=PRECISION)
        if FUSE_LENGTH:
            wide = x.to(tl.float32)
            squares += tl.sum(wide * wide, axis=0)
    return products, weighed, squares


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
    IMAGES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN_D: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_VALUES: tl.constexpr,
    HAS_BEST: tl.constexpr,
    FUSE_LENGTH: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of BLOCK_P patches of each image into the online softmax's state."""
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
        DTYPE,
        PRECISION,
    )
    if FUSE_LENGTH:
        inverse = 1.0 / tl.sqrt(tl.maximum(squares, FLOOR_SQUARED))
    else:
        inverse = tl.load(inverse_ptr + image * P + patch)
    similarity = tl.reshape(products * inverse[None, :], (BLOCK_C, IMAGES, BLOCK_P))
    lane = first_patch + tl.arange(0, BLOCK_P)
    seen = tl.broadcast_to((lane < last_patch)[None, :], (IMAGES, BLOCK_P))
    if HAS_MASK:
        owner = first_image + tl.arange(0, IMAGES)
        # use_mask is 0 or 1: one compiled kernel serves calls with a mask and without
        inside = (owner[:, None] < B) & (lane[None, :] < P * use_mask)
        place = owner[:, None].to(tl.int64) * P + lane[None, :]
        seen = seen & (tl.load(mask_ptr + place, mask=inside, other=1) != 0)
    logits = tl.where(seen[None, :, :], similarity, float("-inf"))
    tile_peak = tl.max(logits, axis=2)
    if HAS_BEST:
        tile_best = tl.argmax(logits, axis=2).to(tl.int32) + first_patch
        best = tl.where(tile_peak > peak, tile_best, best)
    new_peak = tl.maximum(peak, tile_peak)
    anchor = tl.where(new_peak == float("-inf"), 0.0, new_peak)
    fade = tl.exp2((peak - anchor) * factor)
    weights = tl.exp2((logits - anchor[:, :, None]) * factor)
    if HAS_VALUES:
        counted = tl.reshape(weighed * inverse[None, :], (BLOCK_C, IMAGES, BLOCK_P))
    else:
        counted = similarity
    counted = tl.where(seen[None, :, :], counted, 0.0)
    total = total * fade + tl.sum(weights, axis=2)
    summed = summed * fade + tl.sum(weights * counted, axis=2)
    return new_peak, total, summed, best


@triton.jit
def _store_scores(
    out_ptr,
    log_sum_ptr,
    global_ptr,
    scale_ptr,
    bias_ptr,
    merge_weight,
    temperature,
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
    """Finish the softmax; merge with the global score, scale and shift where asked to."""
    some = total > 0.0
    result = tl.where(some, summed / tl.where(some, total, 1.0), 0.0)
    if HAS_LOG_SUM:
        log_sum = tl.where(some, peak * temperature + tl.log(total), float("inf"))
        tl.store(log_sum_ptr + place, log_sum, mask=inside)
    if HAS_GLOBAL:
        whole = tl.load(global_ptr + place, mask=inside, other=0.0).to(tl.float32)
        result = whole + merge_weight * (result - whole)
    if HAS_AFFINE:
        scale = tl.load(scale_ptr + classes, mask=inside, other=0.0)
        bias = tl.load(bias_ptr + classes, mask=inside, other=0.0)
        result = result * scale + bias
    tl.store(out_ptr + place, result, mask=inside)


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
    HAS_MASK: tl.constexpr,
    HAS_VALUES: tl.constexpr,
    HAS_LOG_SUM: tl.constexpr,
    HAS_BEST: tl.constexpr,
    HAS_GLOBAL: tl.constexpr,
    HAS_AFFINE: tl.constexpr,
    FUSE_LENGTH: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Similarities (or merged scores) of BLOCK_C classes and IMAGES images, [B, C].

    Grid: (class blocks x image blocks, SPLITS). Rows of X, T and V have unit inner stride. With
    SPLITS above 1 each split writes its peak, total and sum to `part_ptr` [3, SPLITS, B, C], for
    combine_kernel. TAIL_1 and TAIL_2 are smaller tiles for what full tiles leave of P.
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
    row = tl.minimum(classes, C - 1).to(tl.int64)
    bank_rows = bank_ptr + row * stride_bank
    value_rows = value_ptr + row * stride_value if HAS_VALUES else bank_rows

    peak = tl.full((BLOCK_C, IMAGES), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_C, IMAGES), tl.float32)
    summed = tl.zeros((BLOCK_C, IMAGES), tl.float32)
    best = tl.full((BLOCK_C, IMAGES), -1, tl.int32)
    factor = temperature * LOG2_E

    split = tl.program_id(1)
    share = tl.cdiv(tl.cdiv(P, BLOCK_P), SPLITS) * BLOCK_P
    begin = split * share
    end = tl.minimum(begin + share, P)
    full_end = end
    if TAIL_1 > 0:
        full_end = (P // BLOCK_P) * BLOCK_P
    for first_patch in range(begin, full_end, BLOCK_P):
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
            IMAGES,
            BLOCK_C,
            BLOCK_P,
            BLOCK_D,
            EVEN_D,
            HAS_MASK,
            HAS_VALUES,
            HAS_BEST,
            FUSE_LENGTH,
            DTYPE,
            PRECISION,
        )
    for index in tl.static_range(2):
        if (TAIL_1 if index == 0 else TAIL_2) > 0:
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
                full_end + index * TAIL_1,
                end,
                factor,
                B,
                P,
                D,
                peak,
                total,
                summed,
                best,
                IMAGES,
                BLOCK_C,
                TAIL_1 if index == 0 else TAIL_2,
                BLOCK_D,
                EVEN_D,
                HAS_MASK,
                HAS_VALUES,
                HAS_BEST,
                FUSE_LENGTH,
                DTYPE,
                PRECISION,
            )

    images = (first_image + tl.arange(0, IMAGES)).to(tl.int64)
    inside = (classes[:, None] < C) & (images[None, :] < B)
    place = images[None, :] * C + classes[:, None]
    if SPLITS > 1:
        layer = B.to(tl.int64) * C
        part = part_ptr + split * layer + place
        tl.store(part, peak, mask=inside)
        tl.store(part + SPLITS * layer, total, mask=inside)
        tl.store(part + 2 * SPLITS * layer, summed, mask=inside)
        if HAS_BEST:
            tl.store(best_ptr + split * layer + place, best, mask=inside)
    else:
        if HAS_BEST:
            tl.store(best_ptr + place, best, mask=inside)
        _store_scores(
            out_ptr,
            log_sum_ptr,
            global_ptr,
            scale_ptr,
            bias_ptr,
            merge_weight,
            temperature,
            place,
            classes[:, None],
            inside,
            peak,
            total,
            summed,
            HAS_LOG_SUM,
            HAS_GLOBAL,
            HAS_AFFINE,
        )


@triton.jit(do_not_specialize=["B", "C", "temperature", "merge_weight"])
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
    temperature,
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
    factor = temperature * LOG2_E
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
        fade = tl.exp2((peak - anchor) * factor)
        other_fade = tl.exp2((other_peak - anchor) * factor)
        total = total * fade + other_total * other_fade
        summed = summed * fade + other_sum * other_fade
        peak = new_peak
    if HAS_BEST:
        tl.store(best_ptr + place, best, mask=inside)
    _store_scores(
        out_ptr,
        log_sum_ptr,
        global_ptr,
        scale_ptr,
        bias_ptr,
        merge_weight,
        temperature,
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

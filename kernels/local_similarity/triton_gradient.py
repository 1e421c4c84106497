"""Triton kernels of patch lengths and of the similarities' gradient."""

# A kernel's arguments have Triton's types, which Python annotations do not name.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

from taidpt.kernels.local_similarity.triton_tile import FLOOR_SQUARED, LOG2_E, dot_tile

__all__ = ["gradient_kernel", "inverse_length_kernel"]


@triton.jit(do_not_specialize=["P"])
def inverse_length_kernel(x_ptr, out_ptr, stride_image, stride_patch, P, D, BLOCK_D: tl.constexpr):
    """1 / max(|x|, floor) of one patch a program; grid (B * P,)."""
    row = tl.program_id(0).to(tl.int64)
    start_ptr = x_ptr + (row // P) * stride_image + (row % P) * stride_patch
    squares = tl.zeros((BLOCK_D,), tl.float32)
    for start in range(0, D, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D)
        x = tl.load(start_ptr + column, mask=column < D, other=0.0).to(tl.float32)
        squares += x * x
    tl.store(out_ptr + row, 1.0 / tl.sqrt(tl.maximum(tl.sum(squares, axis=0), FLOOR_SQUARED)))


@triton.jit(
    do_not_specialize=[
        "stride_grad_image",
        "stride_to_rows",
        "rows",
        "P",
        "C",
        "first_class",
        "chunk",
        "temperature",
    ]
)
def gradient_kernel(
    x_ptr,
    bank_ptr,
    mask_ptr,
    inverse_ptr,
    result_ptr,
    log_sum_ptr,
    grad_ptr,
    grad_scale_ptr,
    to_rows_ptr,
    stride_image,
    stride_patch,
    stride_bank,
    stride_grad_image,
    stride_grad_class,
    stride_to_rows,
    rows,
    P,
    C,
    D,
    first_class,
    chunk,
    temperature,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
    EVEN_D: tl.constexpr,
    EVEN_C: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dL/d(x̂·t) / |x| of `chunk` classes from `first_class` on, [rows = B * P, chunk].

    The similarities are computed again; two plain matrix products with this output give the
    gradients of T and X. Its rows are `stride_to_rows` apart, a multiple of 16 as
    `first_class` is. Values are multiplied by the scalar at `grad_scale_ptr` where there is one.
    EVEN_C says that C, `chunk` and `stride_grad_image` are multiples of 4.
    """
    # tell the compiler that these are multiples: it then reads and writes several elements at once
    stride_to_rows = stride_to_rows // 16 * 16
    first_class = first_class // 16 * 16
    if EVEN_C:
        C = C // 4 * 4
        chunk = chunk // 4 * 4
        stride_grad_image = stride_grad_image // 4 * 4
    row_blocks = tl.cdiv(rows, BLOCK_R)
    class_blocks = tl.cdiv(chunk, BLOCK_C)
    program = tl.program_id(0)
    wave = program // (GROUP * class_blocks)
    group_size = tl.minimum(row_blocks - wave * GROUP, GROUP)
    inner = program % (GROUP * class_blocks)
    row = (wave * GROUP + inner % group_size) * BLOCK_R + tl.arange(0, BLOCK_R)
    first_column = (inner // group_size) * BLOCK_C
    local = first_column + tl.arange(0, BLOCK_C)
    safe_row = tl.minimum(row, rows - 1).to(tl.int64)
    classes = (first_class + tl.minimum(local, chunk - 1)).to(tl.int64)
    x_rows = x_ptr + (safe_row // P) * stride_image + (safe_row % P) * stride_patch
    bank_rows = bank_ptr + classes * stride_bank
    # rows of X take the M side here: nothing is reduced, and classes lie side by side in memory
    products, _, _ = dot_tile(
        bank_rows,
        x_rows,
        x_rows,
        D,
        BLOCK_R,
        BLOCK_C,
        BLOCK_D,
        EVEN_D,
        False,
        False,
        False,
        DTYPE,
        PRECISION,
    )
    inverse = tl.load(inverse_ptr + safe_row)
    weighing = inverse
    if mask_ptr is not None:
        seen = tl.load(mask_ptr + safe_row) != 0
        weighing = tl.where(seen, inverse, 0.0)
    if grad_scale_ptr is not None:
        weighing *= tl.load(grad_scale_ptr)
    grad_rows = grad_ptr + (safe_row // P) * stride_grad_image
    HALF: tl.constexpr = BLOCK_C // 2
    # one half of the columns after the other, and one 64-bit address a row: else registers spill
    halves = tl.split(tl.permute(tl.reshape(products, (BLOCK_R, 2, HALF)), (0, 2, 1)))
    for half in tl.static_range(2):
        similarity = halves[half] * inverse[:, None]
        column = first_column + half * HALF + tl.arange(0, HALF)
        inside = (row[:, None] < rows) & (column[None, :] < chunk)
        place = ((safe_row // P) * C + first_class)[:, None] + column[None, :]
        log_sum = tl.load(log_sum_ptr + place, mask=inside, other=float("inf"))
        weight = tl.exp2((similarity * temperature - log_sum) * LOG2_E)
        result = tl.load(result_ptr + place, mask=inside, other=0.0)
        inner_grad = weight * (1.0 + temperature * (similarity - result))
        # the strides of an expanded gradient, such as a sum's, are 0: no copy is needed
        grad_place = (first_class + column).to(tl.int64) * stride_grad_class
        inner_grad *= tl.load(grad_rows[:, None] + grad_place[None, :], mask=inside, other=0.0)
        gradient = (inner_grad * weighing[:, None]).to(to_rows_ptr.dtype.element_ty)
        target = to_rows_ptr + (row.to(tl.int64) * stride_to_rows)[:, None] + column[None, :]
        # columns beyond the chunk are the rows' padding: zeros, since their log_sum is infinite
        padded = (row[:, None] < rows) & (column[None, :] < stride_to_rows)
        tl.store(target, gradient, mask=padded)

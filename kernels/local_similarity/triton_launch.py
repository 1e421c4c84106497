"""Host side of the forward kernel: tiles, workspaces, launches.

Called with tensors that the operator has checked. Under TRITON_INTERPRET=1 the same launches run
on CPU tensors.
"""

from __future__ import annotations

import torch

from taidpt.kernels.local_similarity.chunked import Forward
from taidpt.kernels.local_similarity.inputs import Epilogue, Inputs
from taidpt.kernels.local_similarity.tiles import Shape, Tiles, choose, reads_again
from taidpt.kernels.local_similarity.triton_forward import forward_kernel
from taidpt.kernels.local_similarity.triton_operands import (
    architecture_of,
    element_type,
    inverse_lengths,
    is_interpreted,
    kernel_type,
    launch,
    on_device_of,
    precision,
)
from taidpt.kernels.local_similarity.triton_tile import combine_kernel

__all__ = ["launch_forward"]

# Elements of [B, C] that a program of the joining launch has: one a thread of its four warps.
_COMBINE_BLOCK = 128


def launch_forward(
    operands: Inputs,
    epilogue: Epilogue | None = None,
    *,
    keep_log_sum: bool = False,
    keep_best: bool = False,
    tiles: Tiles | None = None,
) -> Forward:
    """One forward launch, or two where patches are split or lengths come first.

    Args:
        operands: as `prepared` makes them.
        epilogue: score arithmetic; none by default.
        keep_log_sum: also return the log denominators, and 1 / |x|, for a backward pass.
        keep_best: also return the most similar patch of each class, int32, -1 where an image has no
            patch.
        tiles: instead of the table's choice.
    """
    patches, bank, _, _, values = operands
    (B, P, D), C = patches.shape, bank.shape[0]
    outputs = Forward(
        patches.new_empty((B, C), dtype=torch.float32),
        patches.new_empty((B, C), dtype=torch.float32) if keep_log_sum else None,
        None,
        patches.new_empty((B, C), dtype=torch.int32) if keep_best else None,
    )
    if outputs.result.numel() == 0:
        return outputs
    dtype = element_type(patches, bank, values)
    if tiles is None:
        shape = Shape(B, P, C, D, dtype.itemsize, values is not None)
        tiles = choose(architecture_of(patches), shape)
    with on_device_of(patches):
        if not tiles.fuse_length:
            outputs = outputs._replace(inverse=inverse_lengths(patches))
        elif keep_log_sum:
            outputs = outputs._replace(inverse=patches.new_empty((B, P), dtype=torch.float32))
        _launch(operands, epilogue or Epilogue(), outputs, dtype, tiles)
    return outputs


def _launch(
    operands: Inputs, epilogue: Epilogue, outputs: Forward, dtype: torch.dtype, tiles: Tiles
) -> None:
    """Fill `outputs`; a second launch joins the parts where patches are split."""
    patches, bank, temperature, mask, values = operands
    (B, P, D), C = patches.shape, bank.shape[0]
    result, log_sum, inverse, best = outputs
    parts = best_parts = None
    if tiles.splits > 1:
        parts = patches.new_empty((3, tiles.splits, B, C), dtype=torch.float32)
        best_parts = None if best is None else best.new_empty((tiles.splits, B, C))
    grid = (-(-C // tiles.block_c) * -(-B // tiles.images), tiles.splits)
    launch(
        forward_kernel,
        grid,
        patches,
        bank,
        values,
        mask,
        inverse,
        result,
        log_sum,
        best if best_parts is None else best_parts,
        parts,
        epilogue.global_similarity,
        epilogue.scale,
        epilogue.bias,
        patches.stride(0),
        patches.stride(1),
        bank.stride(0),
        0 if values is None else values.stride(0),
        1,
        B,
        P,
        C,
        D,
        temperature,
        epilogue.merge_weight,
        IMAGES=tiles.images,
        BLOCK_C=tiles.block_c,
        BLOCK_P=tiles.block_p,
        BLOCK_D=tiles.block_d,
        TAIL_1=tiles.tails[0],
        TAIL_2=tiles.tails[1],
        SPLITS=tiles.splits,
        GROUP=tiles.group,
        EVEN_D=D % tiles.block_d == 0,
        HAS_MASK=mask is not None,
        HAS_VALUES=values is not None,
        FUSE_LENGTH=tiles.fuse_length,
        READ_AGAIN=reads_again(architecture_of(patches), tiles),
        JOINED_SUMS=not is_interpreted(),
        EVEN_P=tiles.tails != (0, 0) or P % tiles.block_p == 0,
        DTYPE=kernel_type(dtype),
        PRECISION=precision(dtype, architecture_of(patches)),
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    if parts is not None:
        _combine(parts, best_parts, epilogue, outputs)


def _combine(
    parts: torch.Tensor,
    best_parts: torch.Tensor | None,
    epilogue: Epilogue,
    outputs: Forward,
) -> None:
    """Join the splits' softmax states, [3, SPLITS, B, C], into `outputs`."""
    _, splits, B, C = parts.shape
    launch(
        combine_kernel,
        (-(-B * C // _COMBINE_BLOCK),),
        parts,
        best_parts,
        outputs.result,
        outputs.log_sum,
        outputs.best,
        epilogue.global_similarity,
        epilogue.scale,
        epilogue.bias,
        B,
        C,
        epilogue.merge_weight,
        SPLITS=splits,
        BLOCK=_COMBINE_BLOCK,
        num_warps=4,
    )

"""Host side of the forward kernel: tiles, workspaces, launches.

Called with tensors that the operator has checked. Under TRITON_INTERPRET=1 the same launches run
on CPU tensors.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from taidpt.kernels.local_similarity.fused_scores import Epilogue
from taidpt.kernels.local_similarity.tiles import Shape, Tiles, candidates, choose
from taidpt.kernels.local_similarity.triton_forward import forward_kernel
from taidpt.kernels.local_similarity.triton_operands import (
    Operands,
    architecture_of,
    element_type,
    inverse_lengths,
    is_interpreted,
    kernel_type,
    on_device_of,
    precision,
)
from taidpt.kernels.local_similarity.triton_scores import combine_kernel

__all__ = ["Outputs", "launch_forward"]


class Outputs(NamedTuple):
    """What a launch wrote, [B, C] each but `inverse`.

    Attributes:
        result: similarities or scores.
        log_sum: log denominators, where asked for.
        best: the most similar patches, where asked for.
        inverse: 1 / |x|, [B, P], where it was written: for a backward pass, or a launch before.
    """

    result: torch.Tensor
    log_sum: torch.Tensor | None
    best: torch.Tensor | None
    inverse: torch.Tensor | None = None


def launch_forward(
    operands: Operands,
    epilogue: Epilogue | None = None,
    *,
    keep_log_sum: bool = False,
    keep_best: bool = False,
    tiles: Tiles | None = None,
) -> Outputs:
    """One forward launch, or two where patches are split or lengths come first.

    Args:
        operands: as `prepared` makes them.
        epilogue: score arithmetic; none by default.
        keep_log_sum: log denominators for a backward pass.
        keep_best: the most similar patch of each class, int32, -1 where an image has no patch.
        tiles: instead of the heuristic (or, with TAIDPT_AUTOTUNE=1, measured) choice.
    """
    patches, bank = operands.patches, operands.bank
    shape = (patches.shape[0], bank.shape[0])
    outputs = Outputs(
        patches.new_empty(shape, dtype=torch.float32),
        patches.new_empty(shape, dtype=torch.float32) if keep_log_sum else None,
        patches.new_empty(shape, dtype=torch.int32) if keep_best else None,
    )
    if outputs.result.numel() == 0:
        return outputs
    architecture = architecture_of(patches)
    dtype = element_type(patches, bank, operands.values)
    job = _Job(operands, epilogue or Epilogue(), outputs, dtype, architecture)
    with on_device_of(patches):
        inverse = job.run(tiles or _tiles(job))
    return Outputs(outputs.result, outputs.log_sum, outputs.best, inverse)


class _Job(NamedTuple):
    """A forward launch before its tiles are known."""

    operands: Operands
    epilogue: Epilogue
    outputs: Outputs
    dtype: torch.dtype
    architecture: int

    def shape(self) -> Shape:
        """What tiles are chosen by."""
        patches, bank = self.operands.patches, self.operands.bank
        has_values = self.operands.values is not None
        batch, count, dim = patches.shape
        return Shape(batch, count, bank.shape[0], dim, self.dtype.itemsize, has_values)

    def run(self, tiles: Tiles) -> torch.Tensor | None:
        """Launch with these tiles; the patches' inverse lengths where they were written."""
        patches, bank, temperature, mask, values = self.operands
        B, P, D = patches.shape
        C = bank.shape[0]
        inverse = None
        if not tiles.fuse_length:
            inverse = inverse_lengths(patches)
        elif self.outputs.log_sum is not None:
            inverse = patches.new_empty((B, P), dtype=torch.float32)
        layers = tiles.splits if tiles.splits > 1 else 0
        parts = patches.new_empty((3, layers, B, C), dtype=torch.float32) if layers else None
        best = self.outputs.best
        best_parts = None
        if layers and best is not None:
            best_parts = best.new_empty((layers, B, C))
        flags = _flags(self.outputs, self.epilogue)
        grid = (-(-C // tiles.block_c) * -(-B // tiles.images), tiles.splits)
        forward_kernel[grid](
            patches,
            bank,
            values,
            mask,
            inverse,
            self.outputs.result,
            self.outputs.log_sum,
            best if best_parts is None else best_parts,
            parts,
            self.epilogue.global_similarity,
            self.epilogue.scale,
            self.epilogue.bias,
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
            self.epilogue.merge_weight,
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
            JOINED_SUMS=not is_interpreted(),
            EVEN_P=tiles.tails != (0, 0) or P % tiles.block_p == 0,
            DTYPE=kernel_type(self.dtype),
            PRECISION=precision(self.dtype, self.architecture),
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            **flags,
        )
        if parts is not None:
            self.combine(parts, best_parts, tiles.splits, flags)
        return inverse

    def combine(
        self,
        parts: torch.Tensor,
        best_parts: torch.Tensor | None,
        splits: int,
        flags: dict[str, bool],
    ) -> None:
        """The second launch, where patches were split."""
        B, C = self.outputs.result.shape
        block = 128
        combine_kernel[(-(-B * C // block),)](
            parts,
            best_parts,
            self.outputs.result,
            self.outputs.log_sum,
            self.outputs.best,
            self.epilogue.global_similarity,
            self.epilogue.scale,
            self.epilogue.bias,
            B,
            C,
            self.epilogue.merge_weight,
            SPLITS=splits,
            BLOCK=block,
            num_warps=4,
            **flags,
        )


def _flags(outputs: Outputs, epilogue: Epilogue) -> dict[str, bool]:
    return {
        "HAS_LOG_SUM": outputs.log_sum is not None,
        "HAS_BEST": outputs.best is not None,
        "HAS_GLOBAL": epilogue.global_similarity is not None,
        "HAS_AFFINE": epilogue.scale is not None,
    }


_measured: dict[tuple[Any, ...], Tiles] = {}


def _tiles(job: _Job) -> Tiles:
    """The table's choice; with TAIDPT_AUTOTUNE=1 the fastest candidate, measured once a shape."""
    patches = job.operands.patches
    architecture, shape = job.architecture, job.shape()
    if os.environ.get("TAIDPT_AUTOTUNE") != "1" or not patches.is_cuda:
        return choose(architecture, shape)
    flags = tuple(_flags(job.outputs, job.epilogue).values())
    key = (_device_name(patches.device), shape, flags, job.operands.mask is None)
    if key not in _measured:
        if torch.cuda.is_current_stream_capturing():
            return choose(architecture, shape)
        _measured[key] = _fastest(job, list(candidates(architecture, shape)))
    return _measured[key]


@functools.cache
def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


def _fastest(job: _Job, options: list[Tiles]) -> Tiles:
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    def time_ms(tiles: Tiles) -> float:
        run: Callable[[], object] = lambda: job.run(tiles)  # noqa: E731
        try:
            return float(do_bench(run, warmup=5, rep=20, return_mode="median"))
        except OutOfResources:
            return float("inf")

    return min(options, key=time_ms)

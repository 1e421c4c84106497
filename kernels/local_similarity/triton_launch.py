"""Host side of the Triton kernels: tiles, workspaces, launches.

Called with tensors that the operator has checked. Under TRITON_INTERPRET=1 the same launches run
on CPU tensors.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from taidpt.kernels.local_similarity.chunked import Gradients
from taidpt.kernels.local_similarity.chunked import backward as chunked_backward
from taidpt.kernels.local_similarity.naive import NORM_FLOOR
from taidpt.kernels.local_similarity.scores import Epilogue
from taidpt.kernels.local_similarity.tiles import Shape, Tiles, candidates, choose
from taidpt.kernels.local_similarity.triton_gradient import gradient_kernel, inverse_length_kernel
from taidpt.kernels.local_similarity.triton_kernels import combine_kernel, forward_kernel

__all__ = ["Operands", "Outputs", "backward", "forward", "launch_forward", "prepared"]

# Elements of the similarities' gradient that exist at once, beyond 4 x B x C: small beside a GPU.
_GRADIENT_ELEMENTS = 1 << 23
_DTYPES = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
}


class Operands(NamedTuple):
    """What a forward launch reads; inner strides are 1."""

    patches: torch.Tensor
    bank: torch.Tensor
    temperature: float
    mask: torch.Tensor | None
    values: torch.Tensor | None


class Outputs(NamedTuple):
    """Similarities or scores; log denominators and best patches where asked for; all [B, C]."""

    result: torch.Tensor
    log_sum: torch.Tensor | None
    best: torch.Tensor | None


def forward(
    patches: torch.Tensor,
    class_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None,
    values: torch.Tensor | None,
    keep_log_sum: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarities, and log denominators (empty where not kept), as chunked.forward."""
    operands = prepared(patches, class_embeddings, temperature, mask, values)
    outputs = launch_forward(operands, keep_log_sum=keep_log_sum)
    if outputs.log_sum is None:
        return outputs.result, outputs.result.new_empty((0,))
    return outputs.result, outputs.log_sum


def prepared(
    patches: torch.Tensor,
    class_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None,
    values: torch.Tensor | None,
) -> Operands:
    """Copies only what has no unit inner stride; a mask becomes bytes."""

    def rows(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.stride(-1) == 1 else tensor.contiguous()

    return Operands(
        rows(patches),
        rows(class_embeddings),
        temperature,
        None if mask is None else mask.contiguous().view(torch.uint8),
        None if values is None else rows(values),
    )


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
    job = _Job(operands, epilogue or Epilogue(), outputs)
    with _on(patches):
        job.run(tiles or _tiles(job))
    return outputs


def _on(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _element_type(*tensors: torch.Tensor | None) -> torch.dtype:
    """The type of the products' factors: the widest given; fp16 with bf16 needs fp32."""
    wide = torch.float16 if all(t is None or t.dtype == torch.float16 for t in tensors) else None
    if wide is None and all(t is None or t.dtype == torch.bfloat16 for t in tensors):
        wide = torch.bfloat16
    return wide or torch.float32


def _kernel_type(dtype: torch.dtype) -> Any:
    # the interpreter multiplies bfloat16 bits as if they were integers (Triton issue 11584)
    return _DTYPES[dtype] if isinstance(forward_kernel, triton.JITFunction) else tl.float32


def _precision(dtype: torch.dtype, architecture: int) -> str:
    """fp32 products keep fp32's accuracy unless PyTorch was told that TF32 will do."""
    if dtype != torch.float32 or architecture < 80:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def _architecture(tensor: torch.Tensor) -> int:
    if not tensor.is_cuda:
        return 80  # the interpreter: any table row will do
    major, minor = torch.cuda.get_device_capability(tensor.device)
    if major < 7:
        raise RuntimeError(
            f"local_similarity: compute capability {major}.{minor} is unsupported, 7.0 or newer "
            f"is needed for patches of shape {tuple(tensor.shape)}"
        )
    return 10 * major + minor


class _Job(NamedTuple):
    """A forward launch before its tiles are known."""

    operands: Operands
    epilogue: Epilogue
    outputs: Outputs

    def shape(self) -> Shape:
        """What tiles are chosen by."""
        patches, bank = self.operands.patches, self.operands.bank
        item = _element_type(patches, bank, self.operands.values).itemsize
        has_values = self.operands.values is not None
        batch, count, dim = patches.shape
        return Shape(batch, count, bank.shape[0], dim, item, has_values)

    def run(self, tiles: Tiles) -> None:
        """Launch with these tiles."""
        patches, bank, temperature, mask, values = self.operands
        B, P, D = patches.shape
        C = bank.shape[0]
        dtype = _element_type(patches, bank, values)
        inverse = None if tiles.fuse_length else inverse_lengths(patches)
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
            DTYPE=_kernel_type(dtype),
            PRECISION=_precision(dtype, _architecture(patches)),
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            **flags,
        )
        if parts is not None:
            self.combine(parts, best_parts, tiles.splits, flags)

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
            self.operands.temperature,
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
    architecture, shape = _architecture(patches), job.shape()
    if os.environ.get("TAIDPT_AUTOTUNE") != "1" or not patches.is_cuda:
        return choose(architecture, shape)
    flags = tuple(_flags(job.outputs, job.epilogue).values())
    key = (torch.cuda.get_device_name(patches.device), shape, flags, job.operands.mask is None)
    if key not in _measured:
        if torch.cuda.is_current_stream_capturing():
            return choose(architecture, shape)
        _measured[key] = _fastest(job, list(candidates(architecture, shape)))
    return _measured[key]


def _fastest(job: _Job, options: list[Tiles]) -> Tiles:
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    def time_ms(tiles: Tiles) -> float:
        run: Callable[[], None] = lambda: job.run(tiles)  # noqa: E731
        try:
            return float(do_bench(run, warmup=5, rep=20, return_mode="median"))
        except OutOfResources:
            return float("inf")

    return min(options, key=time_ms)


def inverse_lengths(patches: torch.Tensor) -> torch.Tensor:
    """1 / max(|x|, floor) of each patch, [B, P] float32."""
    B, P, D = patches.shape
    result = patches.new_empty((B, P), dtype=torch.float32)
    block = min(1024, triton.next_power_of_2(D))
    inverse_length_kernel[(B * P,)](
        patches, result, patches.stride(0), patches.stride(1), P, D, BLOCK_D=block, num_warps=4
    )
    return result


def backward(
    grad: torch.Tensor,
    saved: tuple[torch.Tensor, torch.Tensor],
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None],
    temperature: float,
    needs: tuple[bool, bool, bool],
) -> Gradients:
    """As chunked.backward; one recomputation and one matrix product a chunk of classes.

    Memory beyond the gradients is O(B·C): a chunk's gradient of the similarities, in the
    patches' type. Separate values go through PyTorch in blocks.
    """
    patches, class_embeddings, mask, values = inputs
    if values is not None:
        return chunked_backward(grad, saved, inputs, temperature, needs)
    operands = prepared(patches, class_embeddings, temperature, mask, None)
    B, P, D = patches.shape
    C = class_embeddings.shape[0]
    d_bank = torch.zeros_like(class_embeddings) if needs[1] else None
    d_unit = grad.new_zeros((B * P, D), dtype=torch.float32) if needs[0] else None
    if grad.numel() == 0:
        return Gradients(torch.zeros_like(patches) if needs[0] else None, d_bank, None)
    with _on(grad):
        job = _GradientJob(operands, saved, grad.float().contiguous(), inverse_lengths(operands[0]))
        step = _chunk(B, P, C)
        for first in range(0, C, step):
            rows = job.rows(first, min(step, C - first))
            bank = operands.bank[first : first + step].to(rows.dtype)
            if d_bank is not None:
                job.store_bank_gradient(d_bank[first : first + step], rows)
            if d_unit is not None:
                d_unit += job.unscaled(rows @ bank)
        d_patches = None if d_unit is None else job.patch_gradient(d_unit)
    return Gradients(d_patches, d_bank, None)


def _chunk(batch: int, patches: int, classes: int) -> int:
    """Classes a chunk: at most 4 x B x C elements of gradient, or a small constant if larger."""
    most = max(4 * batch * classes, _GRADIENT_ELEMENTS)
    step = most // (batch * patches)
    return classes if step >= classes else max(64, step // 64 * 64)


class _GradientJob:
    """What every chunk of the backward pass shares."""

    def __init__(
        self,
        operands: Operands,
        saved: tuple[torch.Tensor, torch.Tensor],
        grad: torch.Tensor,
        inverse: torch.Tensor,
    ) -> None:
        self.operands = operands
        self.result, self.log_sum = (tensor.contiguous() for tensor in saved)
        self.grad = grad
        self.inverse = inverse
        self.dtype = _element_type(operands.patches, operands.bank)
        # fp16 cannot hold small gradients: bring the largest to 1 and take it back afterwards
        self.peak = grad.abs().amax().clamp_min(1e-30) if self.dtype == torch.float16 else None
        one = grad.new_ones(())
        self.scale = one if self.peak is None else (one / self.peak)

    def unscaled(self, product: torch.Tensor) -> torch.Tensor:
        """Take the scale out again, in fp32."""
        wide = product.float()
        return wide if self.peak is None else wide * self.peak

    def rows(self, first: int, count: int) -> torch.Tensor:
        """dL/d(x̂·t) / |x|, scaled, [B * P, count]."""
        patches, bank, temperature, mask, _ = self.operands
        B, P, D = patches.shape
        target = patches.new_empty((B * P, count), dtype=self.dtype)
        block_r, block_c, block_d, warps, stages = (128, 128, 32, 8, 3)
        if self.dtype == torch.float32:
            block_r, block_c = 64, 64
        if patches.is_cpu:  # interpreter
            block_d = 128
        gradient_kernel[(-(-B * P // block_r) * -(-count // block_c),)](
            patches,
            bank,
            mask,
            self.inverse,
            self.result,
            self.log_sum,
            self.grad,
            self.scale,
            target,
            patches.stride(0),
            patches.stride(1),
            bank.stride(0),
            B * P,
            P,
            bank.shape[0],
            D,
            first,
            count,
            temperature,
            BLOCK_R=block_r,
            BLOCK_C=block_c,
            BLOCK_D=block_d,
            GROUP=8,
            EVEN_D=D % block_d == 0,
            HAS_MASK=mask is not None,
            DTYPE=_kernel_type(self.dtype),
            PRECISION=_precision(self.dtype, _architecture(patches)),
            num_warps=warps,
            num_stages=stages,
        )
        return target

    def store_bank_gradient(self, target: torch.Tensor, rows: torch.Tensor) -> None:
        """Σ over rows of gradient times x̂: the lengths are already in `rows`."""
        flat = self.operands.patches.flatten(0, 1).to(rows.dtype)
        target.copy_(self.unscaled(rows.T @ flat))

    def patch_gradient(self, d_unit_over_length: torch.Tensor) -> torch.Tensor:
        """Through the normalisation: dx = (dx̂ − x̂ (x̂·dx̂)) / |x|."""
        patches = self.operands.patches
        d_unit = d_unit_over_length.view(patches.shape)
        unit = patches.float() * self.inverse[:, :, None]
        along = (d_unit * unit).sum(-1, keepdim=True)
        along = torch.where(self.inverse[:, :, None] < 1 / NORM_FLOOR, along, 0.0)
        return d_unit.sub_(unit.mul_(along)).to(patches.dtype)

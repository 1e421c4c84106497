"""Host side of the backward pass in Triton: chunks of classes, two matrix products each."""

from __future__ import annotations

import torch

from taidpt.kernels.local_similarity.chunked import Gradients
from taidpt.kernels.local_similarity.chunked import backward as chunked_backward
from taidpt.kernels.local_similarity.naive import NORM_FLOOR
from taidpt.kernels.local_similarity.tiles import gradient_tiles
from taidpt.kernels.local_similarity.triton_gradient import gradient_kernel
from taidpt.kernels.local_similarity.triton_operands import (
    Operands,
    architecture_of,
    element_type,
    inverse_lengths,
    kernel_type,
    on_device_of,
    precision,
    prepared,
)

__all__ = ["backward"]

# Elements of the similarities' gradient that exist at once, beyond 4 x B x C: small beside a GPU.
_GRADIENT_ELEMENTS = 1 << 23


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
    with on_device_of(grad):
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
        self.dtype = element_type(operands.patches, operands.bank)
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
        architecture = architecture_of(patches)
        tiles = gradient_tiles(architecture, self.dtype.itemsize)
        gradient_kernel[(-(-B * P // tiles.block_r) * -(-count // tiles.block_c),)](
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
            BLOCK_R=tiles.block_r,
            BLOCK_C=tiles.block_c,
            BLOCK_D=tiles.block_d,
            GROUP=tiles.group,
            EVEN_D=D % tiles.block_d == 0,
            HAS_MASK=mask is not None,
            DTYPE=kernel_type(self.dtype),
            PRECISION=precision(self.dtype, architecture),
            num_warps=tiles.warps,
            num_stages=tiles.stages,
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

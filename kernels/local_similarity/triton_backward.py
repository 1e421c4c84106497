"""Host side of the backward pass in Triton: chunks of classes, two matrix products each."""

from __future__ import annotations

import torch

from taidpt.kernels.local_similarity.chunked import Forward, Gradients, backward as chunked_backward
from taidpt.kernels.local_similarity.inputs import Inputs
from taidpt.kernels.local_similarity.naive import NORM_FLOOR
from taidpt.kernels.local_similarity.tiles import gradient_tiles
from taidpt.kernels.local_similarity.triton_gradient import gradient_kernel
from taidpt.kernels.local_similarity.triton_operands import (
    architecture_of,
    element_type,
    inverse_lengths,
    kernel_type,
    on_device_of,
    precision,
    prepared,
)

__all__ = ["backward"]

# Bytes of the similarities' gradient that exist at once: little for a GPU, and enough that a matrix
# product fills it. Where B x C is larger, so many bytes for each of it.
_CHUNK_BYTES = 1 << 26
_CHUNK_BYTES_FOR_EACH = 20
# Rows of that gradient begin on addresses that are written and multiplied fast, whatever C is.
_ROW_ELEMENTS = 16


def backward(
    grad: torch.Tensor, saved: Forward, inputs: Inputs, needs: tuple[bool, bool, bool]
) -> Gradients:
    """As chunked.backward; one recomputation and one matrix product a chunk of classes.

    Memory beyond the gradients is O(B·C): a chunk's gradient of the similarities, in the
    patches' type. Separate values go through PyTorch in blocks.
    """
    patches, class_embeddings, _, _, values = inputs
    if values is not None:
        return chunked_backward(grad, saved, inputs, needs)
    if grad.numel() == 0:
        return Gradients(
            torch.zeros_like(patches) if needs[0] else None,
            torch.zeros_like(class_embeddings) if needs[1] else None,
            None,
        )
    operands = prepared(inputs)
    with on_device_of(grad):
        inverse = inverse_lengths(operands.patches) if saved.inverse is None else saved.inverse
        d_unit, d_bank = _GradientJob(operands, saved, _readable(grad), inverse).run(needs)
        d_patches = None if d_unit is None else _patch_gradient(d_unit, operands.patches, inverse)
    return Gradients(d_patches, d_bank, None)


def _readable(grad: torch.Tensor) -> torch.Tensor:
    """As the kernel reads it: fp32, and classes side by side or all the same."""
    grad = grad.float()
    return grad if grad.stride(1) in (0, 1) else grad.contiguous()


def _chunk(batch: int, patches: int, classes: int, item_bytes: int) -> int:
    """Classes a chunk, about as many in each, so that none is much smaller than the others."""
    most = max(_CHUNK_BYTES_FOR_EACH * batch * classes, _CHUNK_BYTES)
    chunks = -(-batch * patches * classes * item_bytes // most)
    return min(classes, _padded(-(-classes // chunks)))


def _padded(classes: int) -> int:
    return -(-classes // _ROW_ELEMENTS) * _ROW_ELEMENTS


class _GradientJob:
    """What every chunk of the backward pass shares."""

    def __init__(
        self,
        operands: Inputs,
        saved: Forward,
        grad: torch.Tensor,
        inverse: torch.Tensor,
    ) -> None:
        self.operands = operands
        if saved.log_sum is None:
            raise ValueError("backward: the forward pass kept no log denominators")
        self.result, self.log_sum = saved.result.contiguous(), saved.log_sum.contiguous()
        self.grad = grad
        self.inverse = inverse
        self.architecture = architecture_of(operands.patches)
        self.dtype = element_type(operands.patches, operands.class_embeddings)
        self.tiles = gradient_tiles(self.architecture, self.dtype.itemsize)
        # fp16 cannot hold small gradients: bring the largest to 1 and take it back afterwards
        self.peak = grad.abs().amax().clamp_min(1e-30) if self.dtype == torch.float16 else None
        self.scale = None if self.peak is None else self.peak.reciprocal()

    def run(
        self, needs: tuple[bool, bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """dL/dx̂ / |x|, [B * P, D] float32, and the class embeddings' gradient, where needed."""
        patches, bank = self.operands.patches, self.operands.class_embeddings
        B, P, _ = patches.shape
        C = bank.shape[0]
        d_bank = bank.new_empty(bank.shape) if needs[1] else None
        d_unit = None
        flat = patches.flatten(0, 1).to(self.dtype) if needs[1] else patches
        step = _chunk(B, P, C, self.dtype.itemsize)
        # one for all chunks: the next is written when the products of the last have read it
        buffer = patches.new_empty((B * P, _padded(step)), dtype=self.dtype)
        for first in range(0, C, step):
            count = min(step, C - first)
            rows = buffer if count == buffer.shape[1] else buffer[:, :count]
            self.fill(rows, first)
            if d_bank is not None:
                target = d_bank if count == C else d_bank[first : first + count]
                self.store_bank_gradient(target, rows, flat)
            if needs[0]:
                product = self.unscaled(rows @ bank[first : first + step].to(self.dtype))
                d_unit = product if d_unit is None else d_unit.add_(product)
        return d_unit, d_bank

    def unscaled(self, product: torch.Tensor) -> torch.Tensor:
        """Take the scale out again, in fp32."""
        wide = product.float()
        return wide if self.peak is None else wide * self.peak

    def fill(self, rows: torch.Tensor, first: int) -> None:
        """dL/d(x̂·t) / |x|, scaled, of the classes from `first` on, [B * P, classes]."""
        patches, bank, temperature, mask, _ = self.operands
        B, P, D = patches.shape
        count, tiles = rows.shape[1], self.tiles
        gradient_kernel[(-(-B * P // tiles.block_r) * -(-count // tiles.block_c),)](
            patches,
            bank,
            mask,
            self.inverse,
            self.result,
            self.log_sum,
            self.grad,
            self.scale,
            rows,
            patches.stride(0),
            patches.stride(1),
            bank.stride(0),
            self.grad.stride(0),
            self.grad.stride(1),
            rows.stride(0),
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
            EVEN_C=bank.shape[0] % 4 == 0 and self.grad.stride(0) % 4 == 0,
            DTYPE=kernel_type(self.dtype),
            PRECISION=precision(self.dtype, self.architecture),
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )

    def store_bank_gradient(
        self, target: torch.Tensor, rows: torch.Tensor, flat: torch.Tensor
    ) -> None:
        """Σ over rows of gradient times x̂: the lengths are already in `rows`."""
        if self.peak is None and target.dtype == rows.dtype:
            torch.mm(rows.T, flat, out=target)
        else:
            target.copy_(self.unscaled(rows.T @ flat))


def _patch_gradient(
    d_unit_over_length: torch.Tensor, patches: torch.Tensor, inverse: torch.Tensor
) -> torch.Tensor:
    """Through the normalisation: dx = (dx̂ − x̂ (x̂·dx̂)) / |x|."""
    d_unit = d_unit_over_length.view(patches.shape)
    unit = patches.float() * inverse[:, :, None]
    along = (d_unit * unit).sum(-1, keepdim=True)
    along = torch.where(inverse[:, :, None] < 1 / NORM_FLOOR, along, 0.0)
    return d_unit.sub_(unit.mul_(along)).to(patches.dtype)

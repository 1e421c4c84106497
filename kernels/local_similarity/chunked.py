"""The operator through PyTorch in blocks over classes: any device, memory O(B·C) and one block.

The similarities `[B, P, C]` never exist whole: a block holds at most BLOCK_ELEMENTS of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from taidpt.kernels.local_similarity.inputs import Inputs
from taidpt.kernels.local_similarity.naive import NORM_FLOOR

__all__ = [
    "BLOCK_ELEMENTS",
    "Forward",
    "Gradients",
    "backward",
    "best_patches",
    "competing",
    "forward",
]

# 4 MB of float32: a block, its exponentials and their product stay in a core's caches or near them.
BLOCK_ELEMENTS = 1 << 20
# A block has this many classes at least (where there are as many), so that its product is large.
_LEAST_CLASSES = 256
# Below the smallest sum of weights that a patch can give (the peak's weight is 1): only the empty
# sum of an image without patches meets it, and its result becomes 0 / 1e-30 = 0.
_LEAST_TOTAL = 1e-30


class Forward(NamedTuple):
    """Outputs of a forward pass.

    Attributes:
        result: similarities or scores, [B, C].
        log_sum: log of the softmax's denominators, [B, C]; None where not kept. It is +inf where an
            image has no patch, so that every softmax weight made from it is 0.
        inverse: 1 / |x|, [B, P], where the Triton launch wrote it to memory.
        best: the most similar patch of each class, int32 [B, C], where asked for.
    """

    result: torch.Tensor
    log_sum: torch.Tensor | None = None
    inverse: torch.Tensor | None = None
    best: torch.Tensor | None = None


class Gradients(NamedTuple):
    """Gradients of patches, class embeddings and values; None where not asked for."""

    patches: torch.Tensor | None
    class_embeddings: torch.Tensor | None
    values: torch.Tensor | None


class _Unit(NamedTuple):
    rows: torch.Tensor  # x̂, [B, P, D]
    lengths: torch.Tensor  # |x| but at least NORM_FLOOR, [B, P, 1]


def _unit(patches: torch.Tensor, dtype: torch.dtype) -> _Unit:
    rows = patches.to(dtype)
    lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min(NORM_FLOOR)
    return _Unit(rows / lengths, lengths)


def _working_dtype(patches: torch.Tensor) -> torch.dtype:
    return torch.float64 if patches.dtype == torch.float64 else torch.float32


def _blocks(batch: int, patches: int, classes: int) -> Iterator[tuple[slice, slice]]:
    """Slices over images and classes whose product with `patches` is at most BLOCK_ELEMENTS."""
    images = max(1, BLOCK_ELEMENTS // (patches * min(classes, _LEAST_CLASSES)))
    step = max(1, BLOCK_ELEMENTS // (patches * max(1, min(images, batch))))
    for first in range(0, batch, images):
        for start in range(0, classes, step):
            yield slice(first, first + images), slice(start, start + step)


def forward(inputs: Inputs) -> Forward:
    """Similarities and log denominators, both [B, C] float32 (float64 for float64 patches)."""
    patches, class_embeddings, temperature, mask, values = inputs
    dtype = _working_dtype(patches)
    unit, bank = _unit(patches, dtype).rows, class_embeddings.to(dtype)
    value_bank = None if values is None else values.to(dtype)
    shape = (patches.shape[0], class_embeddings.shape[0])
    result, log_sum = patches.new_empty(shape, dtype=dtype), patches.new_empty(shape, dtype=dtype)
    for images, classes in _blocks(shape[0], patches.shape[1], shape[1]):
        similarity = unit[images] @ bank[classes].T
        weighed = similarity if value_bank is None else unit[images] @ value_bank[classes].T
        logits = similarity * temperature
        if mask is not None:
            logits.masked_fill_(~mask[images, :, None], -torch.inf)
        peak = logits.amax(1, keepdim=True).clamp_min(torch.finfo(dtype).min)
        weights = logits.sub_(peak).exp_()
        total = weights.sum(1)
        result[images, classes] = weights.mul_(weighed).sum(1) / total.clamp_min(_LEAST_TOTAL)
        log_sum[images, classes] = torch.where(total > 0, peak[:, 0] + total.log(), torch.inf)
    return Forward(result, log_sum)


def best_patches(inputs: Inputs) -> torch.Tensor:
    """The most similar patch of each class, int32 [B, C]; -1 where an image has no patch."""
    patches, class_embeddings, _, mask, _ = inputs
    dtype = _working_dtype(patches)
    unit, bank = _unit(patches, dtype).rows, class_embeddings.to(dtype)
    shape = (patches.shape[0], class_embeddings.shape[0])
    best = patches.new_empty(shape, dtype=torch.int32)
    for images, classes in _blocks(shape[0], patches.shape[1], shape[1]):
        similarity = unit[images] @ bank[classes].T
        if mask is not None:
            similarity.masked_fill_(~mask[images, :, None], -torch.inf)
        best[images, classes] = similarity.argmax(1).to(torch.int32)
    if mask is not None:
        best[~mask.any(1)] = -1
    return best


def competing(inputs: Inputs) -> torch.Tensor:
    """The second read-out, [B, C]: once over all blocks for the denominators, once for shares."""
    patches, class_embeddings, temperature, mask, _ = inputs
    dtype = _working_dtype(patches)
    unit, bank = _unit(patches, dtype).rows * temperature, class_embeddings.to(dtype)
    shape = (patches.shape[0], class_embeddings.shape[0])
    result = patches.new_empty(shape, dtype=dtype)
    total = patches.new_full(patches.shape[:2], -torch.inf, dtype=dtype)  # log denominators
    blocks = list(_blocks(shape[0], patches.shape[1], shape[1]))
    for images, classes in blocks:
        logits = unit[images] @ bank[classes].T
        total[images] = torch.logaddexp(total[images], logits.logsumexp(2))
    if mask is not None:
        total.masked_fill_(~mask, torch.inf)  # a share of 0
    for images, classes in blocks:
        logits = unit[images] @ bank[classes].T
        result[images, classes] = logits.sub_(total[images, :, None]).amax(1).exp_()
    return result


def backward(
    grad: torch.Tensor, saved: Forward, inputs: Inputs, needs: tuple[bool, bool, bool]
) -> Gradients:
    """Gradients of the inputs, in their own types.

    With p the weights, u = x̂·v and Y = Σ p u: dY/ds = τ p (u − Y) and dY/du = p, which add up to
    p (1 + τ (s − Y)) where the values are the class embeddings.

    Args:
        grad: gradient of the similarities, [B, C].
        saved: what `forward` returned for these inputs, log denominators included.
        inputs: as given to `forward`.
        needs: whether patches, class embeddings, values want a gradient.
    """
    patches, class_embeddings, temperature, mask, values = inputs
    dtype = _working_dtype(patches)
    unit, lengths = _unit(patches, dtype)
    log_sum = saved.log_sum
    if log_sum is None:
        raise ValueError("backward: the forward pass kept no log denominators")
    bank = class_embeddings.to(dtype)
    value_bank = bank if values is None else values.to(dtype)
    d_unit = torch.zeros_like(unit) if needs[0] else None
    d_bank = torch.zeros_like(bank) if needs[1] else None
    d_values = torch.zeros_like(bank) if needs[2] and values is not None else None
    for images, classes in _blocks(grad.shape[0], patches.shape[1], grad.shape[1]):
        rows = unit[images].flatten(0, 1)
        similarity = unit[images] @ bank[classes].T
        weighed = similarity if values is None else unit[images] @ value_bank[classes].T
        weights = (similarity * temperature - log_sum[images, None, classes]).exp_()
        if mask is not None:
            weights.masked_fill_(~mask[images, :, None], 0.0)
        weights *= grad[images, None, classes].to(dtype)
        inner = (weighed - saved.result[images, None, classes]).mul_(temperature)
        if values is None:
            inner += 1.0
        d_similarity = inner.mul_(weights)
        if d_bank is not None:
            d_bank[classes] += d_similarity.flatten(0, 1).T @ rows
        if d_unit is not None:
            d_unit[images] += d_similarity @ bank[classes]
        if values is not None and d_values is not None:
            d_values[classes] += weights.flatten(0, 1).T @ rows
        if values is not None and d_unit is not None:
            d_unit[images] += weights @ value_bank[classes]
    return Gradients(
        None if d_unit is None else _through_norm(d_unit, unit, lengths).to(patches.dtype),
        None if d_bank is None else d_bank.to(class_embeddings.dtype),
        None if d_values is None or values is None else d_values.to(values.dtype),
    )


def _through_norm(d_unit: torch.Tensor, unit: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Gradient of x from that of x̂ = x / max(|x|, floor), all [B, P, D] but lengths [B, P, 1]."""
    along = (d_unit * unit).sum(-1, keepdim=True)
    inside = torch.where(lengths > NORM_FLOOR, along, 0.0)
    return (d_unit - unit * inside) / lengths

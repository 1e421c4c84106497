"""Self-self attention: patches compared by query with query and by key with key."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["self_attention"]


def self_attention(query: Tensor, key: Tensor, value: Tensor, first: int = 0) -> Tensor:
    """`softmax(q·qᵀ / √d) + softmax(k·kᵀ / √d)`, applied to the values.

    Every patch is most like itself and like patches that show the same, so that patch features stay
    sharp where the usual `q·kᵀ` mixes in the whole picture. Rows of the weights sum to 2, as in the
    paper's code. Two products and one softmax each: what TensorRT fuses.

    Args:
        query, key, value: of all tokens, by head, [B, heads, L, d].
        first: the first token that attends; those before it are only attended to.
    Returns:
        [B, L − first, heads · d], before the output projection.
    Source: Wang, Mei, Yuille, "SCLIP: Rethinking Self-Attention for Dense Vision-Language
        Inference", ECCV 2024, section 3.2.
    """
    scale = query.shape[-1] ** -0.5
    weights = [
        (torch.matmul(part[..., first:, :] * scale, part.transpose(-2, -1))).softmax(dim=-1)
        for part in (query, key)
    ]
    return torch.matmul(weights[0] + weights[1], value).transpose(-3, -2).flatten(-2)

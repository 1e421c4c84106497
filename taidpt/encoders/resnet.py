"""CLIP's ModifiedResNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from taidpt.clip.attention_block import split_heads
from taidpt.encoders.base import ImageEncoder
from taidpt.encoders.self_attention import self_attention

__all__ = ["ResNetEncoder"]


class ResNetEncoder(ImageEncoder):
    """CLIP's ModifiedResNet with attention pooling without its positional embedding.

    Global: the mean cell is the query over itself and all cells; without positions any input size
    works. With one query, keys and values need no projection: `(W_k x)·q = x·(W_kᵀ q)` and
    `Σ a W_v x = W_v Σ a x`; the key's bias is equal for all cells and cancels in the softmax. This
    equals the plain form up to rounding and saves two E × E products per cell.
    Local: `c_proj(v_proj(cell))`, folded into one 1 × 1 convolution; with the branch "self" the
    mixture of cells that the pooling's queries and keys give in `self_attention`.
    Source: Guo et al. 2023, section 3.3.
    """

    any_size = True
    attends_to_itself = True

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        pool = visual.attnpool
        weight = pool.c_proj.weight.double() @ pool.v_proj.weight.double()
        bias = pool.c_proj.weight.double() @ pool.v_proj.bias.double() + pool.c_proj.bias.double()
        self.local = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
        self.local.weight.data = weight.float()[:, :, None, None]
        self.local.bias = nn.Parameter(bias.float())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        cells = self._cells(images)
        tokens = cells.flatten(2).transpose(1, 2)
        if self.local_branch == "self":
            return self._pool(tokens), self._attend_to_itself(tokens)
        return self._pool(tokens), self.local(cells).flatten(2).transpose(1, 2)

    def _cells(self, images: Tensor) -> Tensor:
        visual = self.visual
        x = visual.stem(images)
        for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = stage(x)
        return torch.as_tensor(x)

    def _attend_to_itself(self, cells: Tensor) -> Tensor:
        """Self-self attention of cells [B, P, E] → [B, P, D].

        Halved, as nothing is added to it here: weights of a cell sum to 1, as in the pooling.
        """
        pool = self.visual.attnpool
        query, key, value = (
            split_heads(project(cells), pool.num_heads)
            for project in (pool.q_proj, pool.k_proj, pool.v_proj)
        )
        return torch.as_tensor(pool.c_proj(self_attention(query, key, value) / 2))

    def _pool(self, cells: Tensor) -> Tensor:
        """Attention pooling of cells [B, P, E] → [B, D]."""
        pool = self.visual.attnpool
        mean = cells.mean(dim=1, keepdim=True)
        tokens = torch.cat([mean, cells], dim=1)
        width, heads = tokens.shape[-1], pool.num_heads
        size = width // heads
        query = pool.q_proj(mean[:, 0]).unflatten(-1, (heads, size)).transpose(0, 1)  # [h, B, d]
        key_query = torch.matmul(query, pool.k_proj.weight.unflatten(0, (heads, size)))  # [h, B, E]
        logits = torch.matmul(key_query.transpose(0, 1), tokens.transpose(1, 2)) * size**-0.5
        mixed = torch.matmul(logits.softmax(dim=-1), tokens).transpose(0, 1)  # [h, B, E]
        value = pool.v_proj.weight.unflatten(0, (heads, size)).transpose(1, 2)  # [h, E, d]
        joined = torch.matmul(mixed, value).transpose(0, 1).flatten(1) + pool.v_proj.bias
        return torch.as_tensor(pool.c_proj(joined))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        def cells(pixels: int) -> int:  # one strided convolution, then four 2 × 2 poolings
            return ((pixels + 1) // 2) // 16

        return cells(height), cells(width)

"""Attention pooling by one learned query, precomputed as far as a constant query allows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taidpt.encoders.base import UnsupportedTowerError

__all__ = ["OneQueryPool"]


class OneQueryPool(nn.Module):
    """Multi-head attention of one constant query over tokens, and each token's own value.

    `(W_k x)·q = x·(W_kᵀ q)`: the query is multiplied into the key's weights once, so no key is
    computed. The key's bias is equal for all tokens and cancels in the softmax. The caller applies
    output projection, norm and MLP to the mixture and to the values.

    Args:
        query: projected, biased, [E].
        key: W_k, [E, W].
        value: W_v, [E, W], and its bias, [E], or None.
        heads: number of heads.
    """

    key_query: Tensor

    def __init__(
        self, query: Tensor, key: Tensor, value: tuple[Tensor, Tensor | None], heads: int
    ) -> None:
        super().__init__()
        size = len(query) // heads
        by_head = query.double().view(heads, 1, size) @ key.double().view(heads, size, -1)
        self.register_buffer("key_query", (by_head[:, 0] * size**-0.5).to(key.dtype))  # [heads, W]
        self.value = nn.Linear(key.shape[1], len(query), bias=value[1] is not None)
        self.value.weight = nn.Parameter(value[0], requires_grad=False)
        if value[1] is not None:
            self.value.bias = nn.Parameter(value[1], requires_grad=False)
        self.heads = heads

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, L, W] → the mixture [B, E] and all values [B, L, E]."""
        values: Tensor = self.value(tokens)
        weights = torch.matmul(self.key_query, tokens.transpose(1, 2)).softmax(dim=-1)  # [B, h, L]
        split = values.reshape(*values.shape[:2], self.heads, -1).transpose(1, 2)  # [B, h, L, d]
        mixed = torch.matmul(weights[:, :, None], split)
        return mixed.flatten(1), values

    @classmethod
    def from_open_clip(cls, pooler: Any) -> OneQueryPool:
        """From open_clip's AttentionalPooler, of which only the first query's result is used."""
        attention = pooler.attn
        query = pooler.ln_q(pooler.query[:1])[0]
        biases = attention.in_proj_bias.chunk(3)
        if attention.in_proj_weight is not None:
            weights = attention.in_proj_weight.chunk(3)
        else:
            names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
            weights = tuple(getattr(attention, name) for name in names)
        projected = F.linear(query, weights[0], biases[0])
        return cls(projected, weights[1], (weights[2], biases[2]), attention.num_heads)

    @classmethod
    def from_timm(cls, pool: Any) -> OneQueryPool:
        """From timm's AttentionPoolLatent (the attention pooling of SigLIP)."""
        if pool.latent_len != 1 or not isinstance(pool.k_norm, nn.Identity):
            raise UnsupportedTowerError("its attention pooling has several queries or key norms")
        query = pool.q_norm(pool.q(pool.latent[0, 0]).view(pool.num_heads, -1)).flatten()
        key, value = pool.kv.weight.chunk(2)
        bias = None if pool.kv.bias is None else pool.kv.bias.chunk(2)[1]
        return cls(query, key, (value, bias), pool.num_heads)

"""The parts of open_clip's residual attention block.

A block is `x + ls_1(attention(ln_1(x)))`, then `x + ls_2(mlp(ln_2(x)))`. Prefix sharing uses its
keys and values, the local branch of a ViT its value path, and the ONNX exporter an attention
without torch's fused fast path.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "attend",
    "close_block",
    "is_plain_block",
    "join_heads",
    "queries_keys_values",
    "run_block",
    "split_heads",
]


def is_plain_block(block: nn.Module) -> bool:
    """Whether this is open_clip's default block: fused q, k, v, no extra norms or scales."""
    attention = getattr(block, "attn", None)
    return (
        isinstance(attention, nn.MultiheadAttention)
        and attention.in_proj_weight is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
        and not hasattr(block, "ln_1_kv")
        and all(hasattr(block, part) for part in ("ln_1", "ls_1", "ln_2", "mlp", "ls_2"))
    )


def queries_keys_values(block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of tokens [..., W], each [..., W]."""
    mixed = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    query, key, value = mixed.chunk(3, dim=-1)
    return query, key, value


def attend(block: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Multi-head attention [B, L, W] × [B, M, W] → [B, L, W], before the output projection."""
    heads = block.attn.num_heads
    query, key, value = (split_heads(part, heads) for part in (query, key, value))
    return join_heads(F.scaled_dot_product_attention(query, key, value, attn_mask=mask))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[..., L, W] → [..., heads, L, W / heads]."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """[..., heads, L, W / heads] → [..., L, W]."""
    return x.transpose(-3, -2).flatten(-2)


def close_block(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of the block after attention: output projection, residuals, MLP."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    return torch.as_tensor(x + block.ls_2(block.mlp(block.ln_2(x))))


def run_block(block: Any, x: Tensor) -> Tensor:
    """The whole block on tokens [B, L, W], equal to calling the module."""
    query, key, value = queries_keys_values(block, x)
    return close_block(block, x, attend(block, query, key, value, None))

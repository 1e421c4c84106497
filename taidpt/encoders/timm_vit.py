"""timm's transformers of tokens: SigLIP, MobileCLIP-B and -L, ViTamin, EVA, Perception Encoder."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taidpt.clip.attention_block import split_heads
from taidpt.encoders.base import ImageEncoder, UnsupportedTowerError
from taidpt.encoders.one_query import OneQueryPool
from taidpt.encoders.self_attention import self_attention

__all__ = ["TRUNKS", "TimmVitEncoder"]

TRUNKS = ("VisionTransformer", "VisionTransformerRelPos", "Eva")
_BLOCKS = ("Block", "RelPosBlock", "EvaBlock", "EvaBlockPostNorm")
_POOLS = ("token", "avg", "map")


class TimmVitEncoder(ImageEncoder):
    """A timm transformer behind open_clip's TimmModel.

    Trunks pooled by a class token or by the mean use the value path of the last block for patches,
    as open_clip's own ViTs do (MaskCLIP: Zhou, Loy, Dai, ECCV 2022, section 3). Trunks pooled by
    attention ("map": SigLIP, Perception Encoder) use the value path of that pooling: each patch's
    own value, then output projection, norm and MLP. MaskCLIP does the same with the attention
    pooling of CLIP's ResNets; applying it to this pooling is our choice.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        trunk = visual.trunk
        _check(trunk)
        self.last_value = self.pool = None
        if trunk.global_pool == "map":
            self.pool = OneQueryPool.from_timm(trunk.attn_pool)
        else:
            self.last_value = _ValuePath(trunk.blocks[-1].attn)

    @property
    def attends_to_itself(self) -> bool:
        """As `ImageEncoder.attends_to_itself`: without rotations and relative positions."""
        return self.pool is None and type(self.visual.trunk.blocks[-1]).__name__ == "Block"

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.check_size(images)
        x, extra = self._embed(images)
        *body, last = self.visual.trunk.blocks
        for block in body:
            x = block(x, **extra)
        if self.pool is not None:
            return self._by_attention(self.visual.trunk.norm(last(x, **extra)))
        return self._by_last_block(last, x, extra)

    def _embed(self, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Tokens [B, L, W], and the positional arguments that each block takes."""
        trunk = self.visual.trunk
        x = trunk.patch_embed(images)
        kind = type(trunk).__name__
        if kind == "VisionTransformer":
            return trunk.norm_pre(trunk._pos_embed(x)), {}
        if kind == "Eva":
            x, rope = trunk._pos_embed(x)
            return trunk.norm_pre(x), {"rope": rope}
        if trunk.cls_token is not None:
            x = torch.cat([trunk.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        shared = trunk.shared_rel_pos
        return x, {"shared_rel_pos": None if shared is None else shared.get_bias()}

    def _by_last_block(self, last: Any, x: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor]:
        trunk = self.visual.trunk
        assert self.last_value is not None
        first = trunk.num_prefix_tokens
        entered = x if _norms_behind(last) else last.norm1(x)
        # The last block computes only the tokens that pooling uses: the first, or the patches.
        pooled_tokens = slice(0, 1) if trunk.global_pool == "token" else slice(first, None)
        whole = trunk.norm(
            _close(last, x[:, pooled_tokens], last.attn(entered, **extra)[:, pooled_tokens])
        )
        pooled = whole[:, 0] if trunk.global_pool == "token" else whole.mean(dim=1)
        if self.local_branch == "self":
            own = _attend_to_itself(last.attn, entered, first)
        else:
            own = self.last_value(entered[:, first:])
        patches = _close(last, x[:, first:], own)
        return self._project(pooled), self._project(trunk.norm(patches))

    def _by_attention(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        trunk = self.visual.trunk
        assert self.pool is not None
        first = trunk.num_prefix_tokens
        skipped = type(trunk).__name__ != "Eva" and not trunk.pool_include_prefix
        tokens = tokens[:, first:] if skipped else tokens
        if trunk.attn_pool.pos_embed is not None:
            tokens = tokens + trunk.attn_pool.pos_embed
        mixed, values = self.pool(tokens)
        patches = values if skipped else values[:, first:]
        return self._project(self._leave_pool(mixed)), self._project(self._leave_pool(patches))

    def _leave_pool(self, x: Tensor) -> Tensor:
        """The part of the pooling after its attention."""
        pool = self.visual.trunk.attn_pool
        x = pool.proj(x)
        return x if pool.mlp is None else x + pool.mlp(pool.norm(x))

    def _project(self, x: Tensor) -> Tensor:
        """Pooled or patch features [..., W] → joint space [..., D]."""
        trunk = self.visual.trunk
        return torch.as_tensor(self.visual.head(trunk.head(trunk.fc_norm(x))))

    def at(self, height: int, width: int) -> ImageEncoder:
        """As `ImageEncoder.at`; timm interpolates absolute, relative and rotary positions."""
        if (height, width) == tuple(self.visual.image_size):
            return self
        if not hasattr(self.visual.trunk, "set_input_size"):
            return super().at(height, width)
        visual = copy.deepcopy(self.visual)
        visual.trunk.set_input_size((height, width))
        visual.image_size = (height, width)
        return self.like(TimmVitEncoder(visual))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        own, (rows, columns) = self.visual.image_size, self.visual.trunk.patch_embed.grid_size
        return height // (own[0] // rows), width // (own[1] // columns)


class _ValuePath(nn.Module):
    """A timm attention that passes on each token's own value: [B, L, W] → [B, L, W]."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        if attention.qkv is None:
            weight, bias = attention.v_proj.weight, attention.v_proj.bias
        else:
            weight = attention.qkv.weight.chunk(3)[2]
            bias = None if attention.qkv.bias is None else attention.qkv.bias.chunk(3)[2]
        if getattr(attention, "v_bias", None) is not None:
            bias = attention.v_bias
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.norm = getattr(attention, "norm", nn.Identity())
        self.proj = attention.proj

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.proj(self.norm(F.linear(x, self.weight, self.bias))))


def _attend_to_itself(attention: Any, x: Tensor, first: int) -> Tensor:
    """A timm Attention with self-self weights: [B, L, W] → [B, L − first, W]."""
    query, key, value = (
        split_heads(part, attention.num_heads) for part in attention.qkv(x).chunk(3, dim=-1)
    )
    query, key = attention.q_norm(query), attention.k_norm(key)
    norm = getattr(attention, "norm", nn.Identity())
    return torch.as_tensor(attention.proj(norm(self_attention(query, key, value, first))))


def _norms_behind(block: Any) -> bool:
    return type(block).__name__ == "EvaBlockPostNorm"


def _close(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a block after its attention: scales, norms, residuals, MLP."""
    if _norms_behind(block):
        x = x + block.norm1(attended)
        return torch.as_tensor(x + block.norm2(block.mlp(x)))
    x = x + _scaled(block, 1, attended)
    return torch.as_tensor(x + _scaled(block, 2, block.mlp(block.norm2(x))))


def _scaled(block: Any, index: int, x: Tensor) -> Tensor:
    if hasattr(block, f"ls{index}"):
        return torch.as_tensor(getattr(block, f"ls{index}")(x))
    gamma = getattr(block, f"gamma_{index}")
    return x if gamma is None else gamma * x


def _check(trunk: Any) -> None:
    """Refuse trunks whose value path would not be exact."""
    attention = trunk.blocks[-1].attn
    kind = type(trunk.blocks[-1]).__name__
    if kind not in _BLOCKS:
        raise UnsupportedTowerError(f"its {type(trunk).__name__} is made of {kind}")
    include = trunk.global_pool == "avg" and getattr(trunk, "pool_include_prefix", False)
    if trunk.global_pool not in _POOLS or include:
        raise UnsupportedTowerError(f"its tokens are pooled by {trunk.global_pool or 'nothing'!r}")
    if getattr(attention, "gate", None) is not None:
        raise UnsupportedTowerError("its attention is gated")
    if getattr(attention, "num_kv_groups", 1) > 1 or getattr(trunk, "rope_mixed", False):
        raise UnsupportedTowerError("its attention has grouped values or mixed rotations")

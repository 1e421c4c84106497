"""open_clip's own VisionTransformer."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taidpt.clip.attention_block import (
    attend,
    close_block,
    is_plain_block,
    queries_keys_values,
    run_block,
    split_heads,
)
from taidpt.encoders.base import ImageEncoder, UnsupportedTowerError
from taidpt.encoders.one_query import OneQueryPool
from taidpt.encoders.self_attention import self_attention

__all__ = ["VitEncoder"]


class VitEncoder(ImageEncoder):
    """open_clip's VisionTransformer; patches use the value path of the last attention.

    In the last block each patch keeps its own value instead of a mixture over all tokens (the
    attention map becomes the identity); residual, MLP, final norm and projection stay. Unlike the
    plain patch tokens of the last layer, these align with text.
    Source: Zhou, Loy, Dai, "Extract Free Dense Labels from CLIP" (MaskCLIP), ECCV 2022, section 3.
    With the branch "self" each patch gets the mixture of `self_attention` in that place.
    With attentional pooling (CoCa's towers) the last attention is that of the pooling, and the
    same is done there, as MaskCLIP does for CLIP's ResNets.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        self.pool = None
        if visual.attn_pool is not None:
            if visual.attn_pool_contrastive is not None or visual.pool_type != "tok":
                raise UnsupportedTowerError(
                    "its attentional pooling is parallel, cascaded or averaged, not one query's"
                )
            self.pool = OneQueryPool.from_open_clip(visual.attn_pool)

    @property
    def attends_to_itself(self) -> bool:
        """As `ImageEncoder.attends_to_itself`: where the last attention is a plain block's."""
        return self.pool is None and is_plain_block(self.visual.transformer.resblocks[-1])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.check_size(images)
        x = self._embed(images)
        *body, last = self.visual.transformer.resblocks
        for block in body:
            x = _run(block, x)
        if self.pool is not None:
            return self._by_attention(_run(last, x))
        if not is_plain_block(last):
            return self._by_custom_block(last, x)
        query, key, value = queries_keys_values(last, x)
        own = value[:, 1:]
        if self.local_branch == "self":
            by_head = [split_heads(part, last.attn.num_heads) for part in (query, key, value)]
            own = self_attention(by_head[0], by_head[1], by_head[2], first=1)
        patches = close_block(last, x[:, 1:], own)
        # The last block computes only the tokens that pooling uses: the first, or all for "avg".
        pooled = slice(0, 1) if self.visual.pool_type == "tok" else slice(None)
        mixed = attend(last, query[:, pooled], key, value, None)
        return self._project(self._pool(close_block(last, x[:, pooled], mixed))), self._project(
            self.visual.ln_post(patches)
        )

    def _embed(self, images: Tensor) -> Tensor:
        visual = self.visual
        cells = visual.conv1(images).flatten(2).transpose(1, 2)
        start = visual.class_embedding.expand(cells.shape[0], 1, -1)
        return torch.as_tensor(
            visual.ln_pre(torch.cat([start, cells], dim=1) + visual.positional_embedding)
        )

    def _by_attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        visual = self.visual
        assert self.pool is not None
        mixed, values = self.pool(visual.attn_pool.ln_k(x))
        leave = visual.attn_pool.attn.out_proj
        pooled, patches = visual.ln_post(leave(mixed)), visual.ln_post(leave(values[:, 1:]))
        return self._project(pooled), self._project(patches)

    def _by_custom_block(self, last: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled or normed attention: a sequence of one token attends to itself alone."""
        alone = last(x[:, 1:].flatten(0, 1)[:, None])
        patches = alone.unflatten(0, (-1, x.shape[1] - 1))[:, :, 0]
        return self._project(self._pool(last(x))), self._project(self.visual.ln_post(patches))

    def _pool(self, tokens: Tensor) -> Tensor:
        """[B, L, W] → [B, W]: class token or mean of patches, final norm before or after."""
        visual = self.visual
        if not visual.final_ln_after_pool:
            tokens = visual.ln_post(tokens)
        pooled = tokens[:, 1:].mean(dim=1) if visual.pool_type == "avg" else tokens[:, 0]
        return visual.ln_post(pooled) if visual.final_ln_after_pool else pooled

    def _project(self, x: Tensor) -> Tensor:
        return x if self.visual.proj is None else x @ self.visual.proj

    def at(self, height: int, width: int) -> ImageEncoder:
        """As `ImageEncoder.at`; the positional embedding is interpolated to the other grid."""
        if (height, width) == tuple(self.visual.image_size):
            return self
        visual = copy.deepcopy(self.visual)
        grid = self.grid(height, width)
        visual.positional_embedding = nn.Parameter(
            _interpolated(visual.positional_embedding, visual.grid_size, grid), requires_grad=False
        )
        visual.image_size, visual.grid_size = (height, width), grid
        return self.like(VitEncoder(visual))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self.visual.patch_size
        return height // rows, width // columns


def _interpolated(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions of a class token and a grid, [1 + rows · columns, W], for a grid of another size.

    Bicubic with antialiasing, as open_clip does for weights of another input size.
    """
    first, cells = positions[:1], positions[1:]
    maps = cells.reshape(1, *old, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(maps, new, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([first, resized.permute(0, 2, 3, 1).flatten(0, 2)])


def _run(block: Any, x: Tensor) -> Tensor:
    return run_block(block, x) if is_plain_block(block) else torch.as_tensor(block(x))

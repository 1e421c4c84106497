"""A uniform view of open_clip's text towers, found in the model itself or under `.text`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from taidpt.clip.attention_block import is_plain_block
from taidpt.clip.model import ClipModel
from taidpt.runtime.errors import InputError

__all__ = ["TextTower", "text_tower"]


@dataclass(frozen=True)
class TextTower:
    """The parts of a text transformer, and how its tokens are pooled to one feature.

    Attributes:
        token_embedding, transformer, ln_final: open_clip's modules.
        positions: positional embedding, [context length, W].
        projection: W → D as a matrix or a linear layer, or None.
        mask: additive causal mask, [context length, context length], or None.
        pool_type: open_clip's "argmax" or "eos" (the end token), "first" or "last".
        eos_id: the end token's number, for "eos".
    """

    token_embedding: nn.Embedding
    transformer: Any
    ln_final: nn.Module
    positions: Tensor
    projection: Tensor | nn.Linear | None
    mask: Tensor | None
    pool_type: str
    eos_id: int | None

    @property
    def width(self) -> int:
        """W, the length of a token's vector."""
        return int(self.positions.shape[1])

    @property
    def is_causal(self) -> bool:
        """Whether tokens attend only backwards and the feature is the end token's.

        Then texts may be cut behind their end, and a shared beginning is computed only once.
        """
        return self.mask is not None and self.pool_type in ("argmax", "eos")

    @property
    def shares_prefix(self) -> bool:
        """Whether all texts can use the keys and values of a shared beginning."""
        return self.is_causal and all(map(is_plain_block, self.transformer.resblocks))

    def run(self, x: Tensor) -> Tensor:
        """Embedded tokens, positions added, [N, L, W] → final hidden tokens [N, L, W]."""
        length = x.shape[1]
        mask = None if self.mask is None else self.mask[:length, :length]
        return torch.as_tensor(self.ln_final(self.transformer(x, attn_mask=mask)))

    def project(self, x: Tensor) -> Tensor:
        """Hidden tokens [..., W] → joint space [..., D], not normalised."""
        if self.projection is None:
            return x
        if isinstance(self.projection, nn.Linear):
            return torch.as_tensor(self.projection(x))
        return x @ self.projection

    def pooled_positions(self, ends: Tensor, length: int) -> Tensor:
        """The position of each text's pooled token; `ends` holds the end tokens' positions, [N]."""
        if self.pool_type in ("argmax", "eos"):
            return ends
        return torch.full_like(ends, 0 if self.pool_type == "first" else length - 1)


def text_tower(clip: ClipModel) -> TextTower:
    """The text tower of a CLIP.

    Raises:
        InputError: a tower that accepts no context vectors (Hugging Face's, CoCa's).
    """
    model: Any = clip.model
    tower = getattr(model, "text", model)
    needed = ("token_embedding", "positional_embedding", "transformer", "ln_final")
    extras = getattr(tower, "cls_emb", None) is not None or getattr(tower, "use_pad_mask", False)
    if extras or not all(hasattr(tower, part) for part in needed):
        raise InputError(
            f"model {clip.name}: prompts cannot be tuned on its text tower "
            f"({type(tower).__name__}), only on open_clip's own CLIP text transformers"
        )
    pool_type = getattr(tower, "pool_type", None) or getattr(model, "text_pool_type", "argmax")
    return TextTower(
        token_embedding=tower.token_embedding,
        transformer=tower.transformer,
        ln_final=tower.ln_final,
        positions=tower.positional_embedding,
        projection=tower.text_projection,
        mask=tower.attn_mask,
        pool_type=str(pool_type),
        eos_id=getattr(tower, "eos_id", None) or getattr(model, "text_eos_id", None),
    )

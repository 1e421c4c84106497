"""One view of open_clip's tokenizers: CLIP's own, and Hugging Face's for SigLIP models.

The layout of start, end and padding is read off a word that open_clip tokenises with and without
them, so that prompts have the layout of the model's own texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from taidpt.clip.model import ClipModel
from taidpt.clip.text_tower import text_tower
from taidpt.runtime.errors import InputError

__all__ = ["TextTokenizer", "text_tokenizer"]

_PROBE = "a"


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer and its layout of a text: [start] text [end] [pad …].

    Attributes:
        start: token numbers before every text; none in SigLIP.
        end: the token after every text.
        pad: the token that fills the context; may equal `end`, as in SigLIP.
        encode: one text → its own token numbers, cleaned as for the model.
        tokenize: texts → token numbers [N, context length], int64, cut and padded.
    """

    start: tuple[int, ...]
    end: int
    pad: int
    encode: Callable[[str], list[int]]
    tokenize: Callable[[list[str]], Tensor]

    def whole(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token numbers [N, context length], and the position of each text's end token, [N].

        The end is the first one after the start; a text without room for an end token ends with
        the context.
        """
        ids = torch.as_tensor(self.tokenize(list(texts)))
        hits = ids[:, len(self.start) :] == self.end
        first = hits.int().argmax(dim=1) + len(self.start)
        return ids, torch.where(hits.any(dim=1), first, ids.shape[1] - 1)


def text_tokenizer(clip: ClipModel) -> TextTokenizer:
    """The tokenizer of a CLIP.

    Raises:
        InputError: a tokenizer whose layout prompts cannot follow, or whose end token is not the
            one that the text tower pools.
    """
    own: Any = clip.tokenizer
    if hasattr(own, "sot_token_id") and hasattr(own, "eot_token_id"):
        return TextTokenizer((int(own.sot_token_id),), int(own.eot_token_id), 0, own.encode, own)
    tokenizer = _read_layout(clip)
    _check_pooling(clip, tokenizer)
    return tokenizer


def _read_layout(clip: ClipModel) -> TextTokenizer:
    """The layout of a Hugging Face tokenizer in open_clip's wrapper."""
    own: Any = clip.tokenizer
    if not callable(getattr(own, "tokenizer", None)):
        raise InputError(
            f"model {clip.name}: prompts need a tokenizer of CLIP or Hugging Face, "
            f"it has {type(own).__name__}"
        )
    encode = _bare_encoder(own)
    whole, word = own([_PROBE])[0].tolist(), encode(_PROBE)
    count = len(word)
    place = next((i for i in range(len(whole)) if whole[i : i + count] == word), len(whole))
    rest = whole[place + count :]
    if not word or len(rest) < 2 or len(set(rest[1:])) != 1:
        raise InputError(
            f"model {clip.name}: its tokenizer {type(own.tokenizer).__name__} does not lay out "
            "texts as start, text, one end token and padding, so prompts cannot follow it"
        )
    return TextTokenizer(tuple(whole[:place]), rest[0], rest[1], encode, own)


def _bare_encoder(own: Any) -> Callable[[str], list[int]]:
    from open_clip.tokenizer import get_clean_fn

    # open_clip's older wrapper for SigLIP cleans inside its call and has no clean_fn
    clean = getattr(own, "clean_fn", None) or get_clean_fn("canonicalize")

    def encode(text: str) -> list[int]:
        return list(own.tokenizer(clean(text), add_special_tokens=False)["input_ids"])

    return encode


def _check_pooling(clip: ClipModel, tokenizer: TextTokenizer) -> None:
    """Refuse a model that pools by another token's number than the end's."""
    tower = text_tower(clip)
    own: Any = clip.tokenizer
    pooled = {"argmax": len(own.tokenizer) - 1, "eos": tower.eos_id}
    expected = pooled.get(tower.pool_type, tokenizer.end)
    if expected != tokenizer.end:
        raise InputError(
            f"model {clip.name}: its text tower pools at token {expected}, but its tokenizer "
            f"ends texts with {tokenizer.end}: the two are not of one model"
        )

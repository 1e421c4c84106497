"""One view of open_clip's tokenizers: CLIP's own, and Hugging Face's as SigLIP's models bring them.

How a text lies among start, end and padding is not looked up but seen: a word is tokenised with and
without them, by open_clip itself, so that prompts are laid out as the model's own texts are.
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
        start: token numbers before every text; SigLIP has none.
        end: the token behind every text.
        pad: the token that fills up to the context's length; may equal `end`, as in SigLIP.
        encode: one text → its own token numbers, cleaned as the model wants it.
        tokenize: texts → token numbers [N, context length], int64, cut and padded.
    """

    start: tuple[int, ...]
    end: int
    pad: int
    encode: Callable[[str], list[int]]
    tokenize: Callable[[list[str]], Tensor]

    def whole(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token numbers [N, context length], and the position of each text's end token, [N].

        The end is the first one behind the start; a text that leaves no room for any ends with the
        context.
        """
        ids = torch.as_tensor(self.tokenize(list(texts)))
        hits = ids[:, len(self.start) :] == self.end
        first = hits.int().argmax(dim=1) + len(self.start)
        return ids, torch.where(hits.any(dim=1), first, ids.shape[1] - 1)


def text_tokenizer(clip: ClipModel) -> TextTokenizer:
    """The tokenizer of a CLIP.

    Raises:
        InputError: a tokenizer of a layout that prompts cannot follow, or whose end token is not
            the one that the text tower takes its feature from.
    """
    own: Any = clip.tokenizer
    if hasattr(own, "sot_token_id") and hasattr(own, "eot_token_id"):
        return TextTokenizer((int(own.sot_token_id),), int(own.eot_token_id), 0, own.encode, own)
    found = _see_layout(clip)
    _check_pooling(clip, found)
    return found


def _see_layout(clip: ClipModel) -> TextTokenizer:
    """The layout of a Hugging Face tokenizer in open_clip's wrapping."""
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

    # open_clip's older wrapping for SigLIP has its cleaning written out in its call
    clean = getattr(own, "clean_fn", None) or get_clean_fn("canonicalize")

    def encode(text: str) -> list[int]:
        return list(own.tokenizer(clean(text), add_special_tokens=False)["input_ids"])

    return encode


def _check_pooling(clip: ClipModel, found: TextTokenizer) -> None:
    """Where a feature is taken by a token's number, that token must be the end."""
    tower = text_tower(clip)
    own: Any = clip.tokenizer
    pooled = {"argmax": len(own.tokenizer) - 1, "eos": tower.eos_id}
    expected = pooled.get(tower.pool_type, found.end)
    if expected != found.end:
        raise InputError(
            f"model {clip.name}: its text tower takes a text's feature at token {expected}, "
            f"but its tokenizer ends texts with {found.end}: the two do not belong together"
        )

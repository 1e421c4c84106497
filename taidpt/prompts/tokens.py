"""Prompts as token numbers: [start] [context vectors] [name tokens] "." [end] (section 2).

[start] is absent for a tokenizer without a start token (SigLIP's), "." for one that drops
punctuation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from taidpt.clip.model import ClipModel
from taidpt.clip.tokenizers import TextTokenizer, text_tokenizer
from taidpt.runtime.errors import InputError

__all__ = ["NAME_POSITIONS", "PromptTokens", "tokenize_prompts"]

# The tag's name after its context vectors (as in the paper), among them, or before them.
NAME_POSITIONS = ("end", "middle", "front")


@dataclass(frozen=True)
class PromptTokens:
    """The prompts of C tags, all with the same number of context vectors.

    Attributes:
        ids: token numbers, [C, L], `pad` after the end; −1 − j stands for context vector j.
        ends: position of each prompt's end token, [C].
        shared: number of leading tokens equal in all prompts, perhaps 0.
        pad: the model's padding token.
    """

    ids: Tensor
    ends: Tensor
    shared: int
    pad: int = 0

    def __len__(self) -> int:
        return int(self.ids.shape[0])


def tokenize_prompts(
    clip: ClipModel, names: Sequence[str], context_tokens: int, name_position: str = "end"
) -> PromptTokens:
    """Lay out a prompt for every tag name.

    Args:
        names: tag names, each with at least one letter or digit.
        context_tokens: context vectors per prompt, ≥ 1.
        name_position: one of `NAME_POSITIONS`; "middle" puts half of the vectors after the name.
    Raises:
        InputError: no tags, an unknown position, or a name too long for the model's context.
    """
    if name_position not in NAME_POSITIONS:
        raise InputError(
            f"name position {name_position!r}: expected one of {', '.join(NAME_POSITIONS)}"
        )
    if not names:
        raise InputError("the list of tags is empty: give at least one")
    before = {"end": context_tokens, "middle": context_tokens // 2, "front": 0}[name_position]
    slots = [-1 - index for index in range(context_tokens)]
    tokenizer = text_tokenizer(clip)
    # of the full stop after a word; none where the tokenizer drops punctuation
    stop = tokenizer.encode("a.")[len(tokenizer.encode("a")) :]
    rows = []
    for name in names:
        name_ids, own_stop = _name_tokens(tokenizer, name, stop)
        others = len(tokenizer.start) + context_tokens + len(own_stop) + 1
        _check_length(clip, name, len(name_ids), others)
        head, tail = [*tokenizer.start, *slots[:before]], [*slots[before:], *own_stop]
        rows.append([*head, *name_ids, *tail, tokenizer.end])
    ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = torch.tensor(values)
    ends = torch.tensor([len(values) - 1 for values in rows])
    shared = len(tokenizer.start) + before
    return PromptTokens(ids.to(clip.device), ends.to(clip.device), shared, tokenizer.pad)


def _name_tokens(
    tokenizer: TextTokenizer, name: str, stop: list[int]
) -> tuple[list[int], list[int]]:
    """Tokens of a name, and of the full stop that ends the prompt.

    They are tokenised together, as in the method, because a name that ends in punctuation merges
    with the stop. All tokens then count as the name's.
    """
    together = tokenizer.encode(f"{name.replace('_', ' ')}.")
    if stop and together[-len(stop) :] == stop:
        return together[: -len(stop)], stop
    return together, []


def _check_length(clip: ClipModel, name: str, tokens: int, others: int) -> None:
    room = clip.context_length - others
    if tokens > room:
        raise InputError(
            f"tag {name!r} takes {tokens} tokens, and {max(room, 0)} fit beside the prompt's "
            f"other {others} into the context of {clip.context_length}: shorten the tag "
            "or use fewer context tokens"
        )

"""Prompts as token numbers: [start] [context vectors] [name tokens] "." [end] (section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from taidpt.clip import ClipModel
from taidpt.runtime.errors import InputError

__all__ = ["NAME_POSITIONS", "PromptTokens", "tokenize_prompts"]

# Where a tag's name stands: behind its context vectors (the method's), amid them, before them.
NAME_POSITIONS = ("end", "middle", "front")


@dataclass(frozen=True)
class PromptTokens:
    """The prompts of C tags, all with the same number of context vectors.

    Attributes:
        ids: token numbers, [C, L], zero behind the end; −1 − j stands for context vector j.
        ends: position of each prompt's end token, [C].
        shared: how many tokens from the first on are the same in every prompt.
    """

    ids: Tensor
    ends: Tensor
    shared: int

    def __len__(self) -> int:
        return int(self.ids.shape[0])


def tokenize_prompts(
    clip: ClipModel, names: Sequence[str], context_tokens: int, name_position: str = "end"
) -> PromptTokens:
    """Lay out a prompt for every tag name.

    Args:
        names: tag names, each with at least one letter or digit.
        context_tokens: context vectors a prompt, ≥ 1.
        name_position: one of `NAME_POSITIONS`; "middle" puts half of the vectors behind the name.
    Raises:
        InputError: no tags, an unknown position, or a name that does not fit the model's context.
    """
    if name_position not in NAME_POSITIONS:
        raise InputError(
            f"name position {name_position!r}: expected one of {', '.join(NAME_POSITIONS)}"
        )
    if not names:
        raise InputError("the list of tags is empty: name at least one")
    before = {"end": context_tokens, "middle": context_tokens // 2, "front": 0}[name_position]
    slots = [-1 - index for index in range(context_tokens)]
    start, end = _special_tokens(clip)
    rows = []
    for name in names:
        name_ids, stop = _name_tokens(clip, name)
        _check_length(clip, name, len(name_ids), len(stop) + context_tokens + 2)
        rows.append([start, *slots[:before], *name_ids, *slots[before:], *stop, end])
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = torch.tensor(values)
    ends = torch.tensor([len(values) - 1 for values in rows])
    return PromptTokens(ids.to(clip.device), ends.to(clip.device), 1 + before)


def _special_tokens(clip: ClipModel) -> tuple[int, int]:
    tokenizer: Any = clip.tokenizer
    if not (hasattr(tokenizer, "sot_token_id") and hasattr(tokenizer, "eot_token_id")):
        raise InputError(
            f"model {clip.name}: prompts need CLIP's own tokenizer, "
            f"it has {type(tokenizer).__name__}"
        )
    return int(tokenizer.sot_token_id), int(tokenizer.eot_token_id)


def _name_tokens(clip: ClipModel, name: str) -> tuple[list[int], list[int]]:
    """Tokens of a name, and of the full stop that closes the prompt.

    They are tokenised together, as the method does, because a name that ends in punctuation
    merges with the stop; then all of it counts as the name's.
    """
    together = clip.tokenizer.encode(f"{name.replace('_', ' ')}.")
    stop = clip.tokenizer.encode(".")
    if together[-len(stop) :] == stop:
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

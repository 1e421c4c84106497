"""Thresholds of tags that are made from tuned prompts."""

from __future__ import annotations

import statistics

from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.bank.thresholds import Threshold
from taidpt.texts.tags import TagSet

__all__ = ["thresholds_of"]


def thresholds_of(prompts: TunedPrompts, tags: TagSet, transform: str) -> tuple[Threshold, ...]:
    """The prompts' own, and for other names the median of them: all share contexts and scale."""
    if not prompts.thresholds or prompts.scoring.transform != transform:
        return ()
    own = dict(zip(prompts.names, prompts.thresholds, strict=True))
    usual = Threshold(
        statistics.median(threshold.on for threshold in prompts.thresholds),
        statistics.median(threshold.off for threshold in prompts.thresholds),
        "from other tags",
    )
    return tuple(own.get(name, usual) for name in tags.names)

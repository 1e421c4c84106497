"""Which thresholds a bank gets: the prompts' own where they fit, else defaults."""

from __future__ import annotations

import dataclasses
import statistics

from taidpt.export.classes.banked_classes import Classes
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.bank.class_bank import ClassBank, Threshold, default_thresholds
from taidpt.texts.tags import TagSet

__all__ = ["thresholds_of", "with_thresholds"]


def with_thresholds(bank: ClassBank, prompts: Classes, transform: str) -> ClassBank:
    """The prompts' own thresholds where they are on this scale of scores, else defaults."""
    if bank.thresholds and prompts.scoring.transform == transform:
        return bank
    defaults = default_thresholds(bank, transform)
    return dataclasses.replace(bank, thresholds=defaults, probabilities=())


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

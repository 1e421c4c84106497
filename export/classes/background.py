"""Background tags of an export: common nouns that compete with the tags and have no score."""

from __future__ import annotations

import dataclasses

from taidpt.clip.model import ClipModel
from taidpt.export.classes.bank_maker import BankMaker
from taidpt.export.classes.banked_classes import Classes
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.runtime.errors import InputError
from taidpt.texts.background import background_tags
from taidpt.texts.tags import TagSet
from taidpt.tuning.background import unrelated

__all__ = ["with_background"]


def with_background(
    bank: ClassBank, classes: Classes, clip: ClipModel, scoring: Scoring
) -> ClassBank:
    """The bank with rows of common nouns that mean something else than its tags.

    The rows have the tuned contexts that all tags share, or else a plain template.

    Args:
        classes: what the bank was baked from.
        scoring: of the export; only "center" compares tags without moving what a score means when
            their number changes.
    Raises:
        InputError: another transform, or a bank with value embeddings.
    """
    if scoring.transform != "center":
        raise InputError(
            f"--background competes in the score transform, and this export's is "
            f"{scoring.transform!r}: add --score-transform center"
        )
    if bank.value_embeddings is not None:
        raise InputError("--background: DualCoOp's prompts have no words for other tags")
    tags = TagSet(classes.tags, "the tags")
    nouns = background_tags(tags)
    kept = tuple(nouns[index] for index in unrelated(clip, tags.tags, nouns))
    prompts = classes if isinstance(classes, TunedPrompts) else None
    maker = BankMaker(clip, scoring, prompts)
    rows = maker.make(TagSet(kept, "background"), maker.choices[0])
    plain = dataclasses.replace(rows, thresholds=(), probabilities=(), metadata={})
    return dataclasses.replace(bank, background=plain)

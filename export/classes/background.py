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

__all__ = ["background_rows"]


def background_rows(classes: Classes, clip: ClipModel, scoring: Scoring) -> ClassBank:
    """Rows of common nouns that mean something else than the tags.

    They have the tuned contexts that all tags share, or else a plain template.

    Args:
        scoring: of the export; only "center" compares tags without moving what a score means when
            their number changes.
    Raises:
        InputError: another transform.
    """
    if scoring.transform != "center":
        raise InputError(
            f"--background competes in the score transform, and this export's is "
            f"{scoring.transform!r}: add --score-transform center"
        )
    tags = TagSet(classes.tags, "the tags")
    nouns = background_tags(tags)
    kept = tuple(nouns[index] for index in unrelated(clip, tags.tags, nouns))
    prompts = classes if isinstance(classes, TunedPrompts) else None
    maker = BankMaker(clip, scoring, prompts)
    rows = maker.make(TagSet(kept, "background"), maker.choices[0])
    return dataclasses.replace(rows, thresholds=(), probabilities=(), metadata={})

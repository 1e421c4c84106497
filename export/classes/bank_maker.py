"""Banks of tags from their names, by a text tower, with tuned prompts or without.

| choice | rows |
|---|---|
| `prompts` | the tuned contexts that all tags share, around the new names |
| `templates`, `templates80` | "a photo of a {}.", or the 80 ImageNet templates |
| `centroids` | the mean of the captions that name a tag; the template where none does |
| `linear` | a linear classifier on captions, initialised with the template |
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taidpt.clip.model import ClipModel, load_clip
from taidpt.evaluation.methods import MethodInputs, method_bank
from taidpt.export.classes.bake import bake
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.bank.class_bank import ClassBank, Threshold
from taidpt.runtime.bundle.manifest import Manifest
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.runtime.errors import InputError
from taidpt.texts.captions import read_texts
from taidpt.texts.labels import LabelledText, LabelReport, label_texts
from taidpt.texts.tags import TagSet

__all__ = ["CHOICES", "BankMaker", "bank_of_names", "require_model"]

CHOICES = ("prompts", "templates", "templates80", "centroids", "linear")
_METHODS = {
    "templates": "clipdpt",
    "templates80": "clipdpt80",
    "centroids": "centroids",
    "linear": "linear",
}
_NEED_TEXTS = ("centroids", "linear")


@dataclass(eq=False)
class BankMaker:
    """A text tower, and the sources of its banks.

    Attributes:
        clip: the model.
        scoring: how pictures are scored with the banks.
        prompts: tuned prompts, or None.
        texts: files of captions.
        notes: for the user, on the banks that were made.
    """

    clip: ClipModel
    scoring: Scoring
    prompts: TunedPrompts | None = None
    texts: tuple[Path, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def choices(self) -> tuple[str, ...]:
        """The choices for which all sources are there."""
        given = {"prompts": self.prompts is not None and not self.prompts.settings.class_specific}
        return tuple(
            name
            for name in CHOICES
            if given.get(name, bool(self.texts) if name in _NEED_TEXTS else name in _METHODS)
        )

    def make(self, tags: TagSet, choice: str) -> ClassBank:
        """A bank of some tags.

        Args:
            tags: any; tags of the prompts keep their thresholds.
            choice: one of `CHOICES`.
        Raises:
            InputError: a source of the choice is missing, or is specific to other tags.
        """
        if choice not in CHOICES:
            raise InputError(f"--from {choice}: expected one of {', '.join(CHOICES)}")
        bank = self._from_prompts(tags) if choice == "prompts" else self._from_method(tags, choice)
        metadata = {
            **bank.metadata,
            "model": self.clip.identity(),
            "scoring": dataclasses.asdict(self.scoring),
            "made_from": choice,
        }
        bank = dataclasses.replace(bank, metadata=metadata)
        return bank.with_thresholds_for(self.scoring.transform)

    def _from_prompts(self, tags: TagSet) -> ClassBank:
        prompts = self.prompts
        if prompts is None:
            raise InputError("--from prompts: give a prompts file, or take --from templates")
        if prompts.settings.class_specific:
            raise InputError(
                "these prompts have a context for each tag, which is of no use for other names; "
                "take --from templates, or prompts with shared contexts"
            )
        thresholds = _thresholds_of(prompts, tags, self.scoring.transform)
        maps = dict(zip(prompts.names, prompts.probabilities, strict=False)) if thresholds else {}
        probabilities = tuple(map(maps.get, tags.names)) if maps else ()
        chosen = dataclasses.replace(
            prompts, tags=tags.tags, thresholds=thresholds, probabilities=probabilities
        )
        return bake(chosen, self.clip)

    def _from_method(self, tags: TagSet, choice: str) -> ClassBank:
        if choice in _NEED_TEXTS and not self.texts:
            raise InputError(f"--from {choice} needs captions: give --texts FILE")
        inputs = MethodInputs(
            self.clip,
            tags,
            self._labelled(tags) if choice in _NEED_TEXTS else (),
            temperature=self.scoring.temperature,
        )
        return method_bank(_METHODS[choice], inputs, self.scoring.merge_weight)

    def _labelled(self, tags: TagSet) -> list[LabelledText]:
        report = LabelReport(tags)
        texts = (text for file in self.texts for text in read_texts(file))
        found: list[LabelledText] = list(label_texts(texts, tags, report))
        if not found:
            raise InputError(
                f"none of {report.texts:,} texts names a tag; give texts that do, synonyms in a "
                "tags.yaml, or take --from templates"
            )
        if report.missing and report.warning() not in self.notes:
            self.notes.append(report.warning())
        return found


def _thresholds_of(prompts: TunedPrompts, tags: TagSet, transform: str) -> tuple[Threshold, ...]:
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


def bank_of_names(
    names: Sequence[str], manifest: Manifest, prompts: str | Path, pretrained: str | None
) -> ClassBank:
    """The bank of new names for a running bundle, which `tagger.bank.add` calls.

    Args:
        names: C names.
        manifest: of the bundle, with its model and scoring.
        prompts: a prompts file, or "templates" or "templates80".
        pretrained: another source of the weights than the one that the bundle names.
    Raises:
        InputError: the prompts or the weights are of another model than the bundle.
    """
    model, scoring = manifest.model, manifest.scoring
    choice = str(prompts) if str(prompts) in _METHODS else "prompts"
    tuned = TunedPrompts.load(prompts) if choice == "prompts" else None
    if tuned is not None:
        require_model(f"the prompts {prompts}", tuned.model, "the bundle", model.to_json())
    clip = load_clip(model.name, pretrained or model.pretrained)
    require_model("the weights", clip.identity(), "the bundle", model.to_json())
    return BankMaker(clip, scoring, tuned).make(TagSet.from_names(names), choice)


def require_model(
    what: str, found: Mapping[str, Any], owner: str, wanted: Mapping[str, Any]
) -> None:
    """Raise InputError, naming both models, unless both have the same weights."""
    if found["weights_sha256"] != wanted["weights_sha256"]:
        models = [
            f"{model['name']} {model['pretrained']} (weights {model['weights_sha256'][:12]}…)"
            for model in (found, wanted)
        ]
        raise InputError(
            f"{what} are of {models[0]}, and {owner} is of {models[1]}: give its own "
            "--pretrained or prompts"
        )

"""`taidpt bank make`: the class bank of prompts, of a bundle, or of names alone, as one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import require_extra
from taidpt.runtime.storage.outputs import refuse_unwritable
from taidpt.runtime.tagger.active_bank import bundle_bank

if TYPE_CHECKING:
    from taidpt.export.classes.bank_maker import BankMaker

__all__ = ["BankRequest", "make_bank", "open_maker"]


@dataclass(frozen=True)
class BankRequest:
    """Sources of a bank.

    Attributes:
        source: a prompts file, or a bundle's folder.
        tags: names with commas between them, or a tags.yaml or .txt; None keeps the source's own.
        choice: one of `bank_maker.CHOICES`; None takes the prompts where there are some.
        texts: captions, for the choices that use them.
        pretrained: another source of the weights than the one that the source names.
    """

    source: Path
    tags: str | None = None
    choice: str | None = None
    texts: tuple[Path, ...] = ()
    pretrained: str | None = None


def make_bank(request: BankRequest, output: Path) -> tuple[ClassBank, list[str]]:
    """Write a bank: of new names, of tuned prompts, or of a bundle.

    Returns:
        The bank, and notes for the user.
    Raises:
        InputError: the source is neither prompts nor a bundle, the tags or texts cannot be used,
            or the output cannot be written.
    """
    from taidpt.texts.tags import TagSet

    refuse_unwritable(output)
    notes: list[str] = []
    if request.tags is None:
        bank = _own_tags(request)
    else:
        tags = TagSet.parse(request.tags)
        maker = open_maker(request)
        notes = maker.notes
        bank = maker.make(tags, request.choice or maker.choices[0])
    bank.save(output)
    return bank, notes


def open_maker(request: BankRequest) -> BankMaker:
    """Load the text tower of a source's model.

    Raises:
        MissingDependencyError: PyTorch is not installed.
        InputError: the weights are not those of the source.
    """
    require_extra("export", "exporting")
    from taidpt.clip.model import load_clip
    from taidpt.export.classes.bank_maker import BankMaker, require_model
    from taidpt.prompts.prompts_file import TunedPrompts

    prompts = None
    if request.source.is_dir():
        manifest = Bundle.load(request.source).manifest
        model, scoring = manifest.model.to_json(), manifest.scoring
    else:
        prompts = TunedPrompts.load(request.source)
        model, scoring = dict(prompts.model), prompts.scoring
    clip = load_clip(str(model["name"]), request.pretrained or str(model["pretrained"]))
    require_model("the weights", clip.identity(), str(request.source), model)
    return BankMaker(clip, scoring, prompts, request.texts)


def _own_tags(request: BankRequest) -> ClassBank:
    if request.choice is not None or request.texts:
        raise InputError("--from and --texts are for banks of new names: give --tags too")
    if request.source.is_dir():
        return bundle_bank(Bundle.load(request.source))
    return _baked(request.source, request.pretrained)


def _baked(source: Path, pretrained: str | None) -> ClassBank:
    from taidpt.clip.model import load_clip
    from taidpt.export.classes.bake import bake
    from taidpt.prompts.prompts_file import TunedPrompts

    prompts = TunedPrompts.load(source)
    name, weights = str(prompts.model["name"]), str(prompts.model["pretrained"])
    bank = bake(prompts, load_clip(name, pretrained or weights))
    return bank.with_thresholds_for(prompts.scoring.transform)

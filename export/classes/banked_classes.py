"""What can be exported: tuned prompts, or a class bank that somebody made already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.clip.model import ClipModel
from taidpt.encoders.picture_input import PictureInput
from taidpt.prompts.prompts_file import TunedPrompts, read_picture
from taidpt.runtime.bank.bank_file import is_bank
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.storage.json_reader import JsonReader
from taidpt.texts.tags import Tag

__all__ = ["BankedClasses", "Classes", "load_classes"]


@dataclass(frozen=True, eq=False)
class BankedClasses:
    """A bank with what exporting wants to know of it; it has what prompts have, but no contexts.

    Attributes:
        bank: C tags; its metadata name the model, and say how pictures are scored.
    """

    bank: ClassBank

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The tags, whose synonyms a bank does not keep."""
        return tuple(Tag(name) for name in self.bank.names)

    @property
    def model(self) -> Mapping[str, Any]:
        """Which CLIP: name, pretrained, weights_sha256.

        Raises:
            InputError: the bank does not say.
        """
        model: Mapping[str, Any] = self._read("model", _model)
        return model

    @property
    def scoring(self) -> Scoring:
        """How pictures are scored; the defaults where the bank says nothing.

        Raises:
            InputError: what it says is damaged.
        """
        return (
            self._read("scoring", Scoring.from_metadata)
            if "scoring" in self.bank.metadata
            else Scoring()
        )

    @property
    def picture(self) -> PictureInput | None:
        """What of a picture the bank was evaluated on; None where it does not say.

        Raises:
            InputError: what it says is damaged.
        """
        found: PictureInput | None = None
        if "picture" in self.bank.metadata:
            found = self._read("picture", read_picture)
        return found

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The bank's other metadata."""
        return {
            key: value
            for key, value in self.bank.metadata.items()
            if key not in ("model", "scoring", "picture")
        }

    def check_model(self, clip: ClipModel) -> None:
        """Raise InputError unless this CLIP is the one that the bank was made with."""
        if clip.weights_sha256 != self.model["weights_sha256"]:
            raise InputError(
                f"this bank was made with {self.model['name']} and weights "
                f"{self.model['pretrained']} (sha256 {self.model['weights_sha256'][:12]}…), got "
                f"{clip.name} with {clip.pretrained} ({clip.weights_sha256[:12]}…)"
            )

    def _read(self, key: str, read: Any) -> Any:
        try:
            return read(JsonReader(dict(self.bank.metadata), "the bank's metadata").child(key))
        except BundleError as error:
            raise InputError(f"{error}; make the bank again with `taidpt bank`") from None


Classes = TunedPrompts | BankedClasses


def _model(found: JsonReader) -> Mapping[str, Any]:
    for key in ("name", "pretrained", "weights_sha256"):
        found.string(key)
    model: Mapping[str, Any] = found.document
    return model


def load_classes(path: Path) -> Classes:
    """Prompts or a bank, whichever the file is.

    Raises:
        InputError: it is neither, or damaged.
    """
    if not is_bank(path):
        return TunedPrompts.load(path)
    classes = BankedClasses(ClassBank.load(path))
    try:
        _ = classes.model, classes.scoring, classes.picture
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return classes

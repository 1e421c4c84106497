"""What can be exported: tuned prompts, or an existing class bank."""

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
    """A class bank with the interface of prompts that exporting uses; it has no contexts.

    Attributes:
        bank: C tags; its metadata have the model, and how pictures are scored.
    """

    bank: ClassBank

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The tags; a bank has no synonyms."""
        return tuple(Tag(name) for name in self.bank.names)

    @property
    def model(self) -> Mapping[str, Any]:
        """Which CLIP: name, pretrained, weights_sha256.

        Raises:
            InputError: the bank does not name it.
        """
        model: Mapping[str, Any] = self._read("model", _model)
        return model

    @property
    def scoring(self) -> Scoring:
        """How pictures are scored; the defaults where the bank has no record.

        Raises:
            InputError: the record is damaged.
        """
        return (
            self._read("scoring", Scoring.from_metadata)
            if "scoring" in self.bank.metadata
            else Scoring()
        )

    @property
    def picture(self) -> PictureInput | None:
        """The part of a picture on which the bank was evaluated; None where it has no record.

        Raises:
            InputError: the record is damaged.
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
            raise InputError(f"{error}; make the bank again with `taidpt bank make`") from None


Classes = TunedPrompts | BankedClasses


def _model(found: JsonReader) -> Mapping[str, Any]:
    for key in ("name", "pretrained", "weights_sha256"):
        found.string(key)
    model: Mapping[str, Any] = found.document
    return model


def load_classes(path: Path) -> Classes:
    """Load prompts or a bank, by the file's content.

    Raises:
        InputError: it is neither, or is damaged.
    """
    if not is_bank(path):
        return TunedPrompts.load(path)
    classes = BankedClasses(ClassBank.load(path))
    try:
        _ = classes.model, classes.scoring, classes.picture
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return classes

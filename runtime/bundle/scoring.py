"""How a frame's similarities become scores: one description for prompts, banks and bundles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taidpt.runtime.bank.class_bank import DEFAULT_SCALE
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.storage.json_reader import JsonReader

__all__ = ["SCORE_TRANSFORMS", "Scoring"]

SCORE_TRANSFORMS = ("none", "center", "log_softmax")


@dataclass(frozen=True)
class Scoring:
    """How the two heads become one score.

    Attributes:
        temperature: sharpness of the local weights over patches, > 0. The default is the paper's
            value for pictures.
        merge_weight: share of the local score, from 0 (global alone) to 1.
        transform: applied over a picture's tags, one of `SCORE_TRANSFORMS`.
        scale: factor on the similarities, > 0; the paper's 4 unless it is learned. The tags of a
            bank have a scale each, so a manifest does not store it.
    """

    temperature: float = 40.0
    merge_weight: float = 0.5
    transform: str = "none"
    scale: float = DEFAULT_SCALE

    def __post_init__(self) -> None:
        for name in ("temperature", "scale"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} should be above 0, got {getattr(self, name)}")
        if not 0 <= self.merge_weight <= 1:
            raise InputError(f"merge weight should be from 0 to 1, got {self.merge_weight}")
        if self.transform not in SCORE_TRANSFORMS:
            raise InputError(
                f"score transform {self.transform!r}: expected one of {', '.join(SCORE_TRANSFORMS)}"
            )

    def to_manifest(self) -> dict[str, Any]:
        """As the object `scoring` of a manifest."""
        return {
            "temperature": self.temperature,
            "merge_weight": self.merge_weight,
            "score_transform": self.transform,
            "scale": "in bank",
            "bias": "in bank",
        }

    @classmethod
    def from_manifest(cls, reader: JsonReader) -> Scoring:
        """From the object `scoring` of a manifest; BundleError when a key is missing or wrong."""
        return cls._read(reader, reader.string("score_transform"), DEFAULT_SCALE)

    @classmethod
    def from_metadata(cls, reader: JsonReader) -> Scoring:
        """From the object `scoring` of a prompts file or a bank, which `asdict` made.

        Raises:
            BundleError: a key is missing or wrong.
        """
        scale = reader.number("scale") if "scale" in reader else DEFAULT_SCALE
        return cls._read(reader, reader.string("transform"), scale)

    @classmethod
    def _read(cls, reader: JsonReader, transform: str, scale: float) -> Scoring:
        try:
            return reader.build(cls, transform=transform, scale=scale)
        except InputError as error:
            raise BundleError(f"{reader.where}: {error}") from None

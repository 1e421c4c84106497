"""Centred cosine: how far a device's outputs are from PyTorch's, on equal pixels.

Plain cosine detects almost nothing on CLIP features: their mean over all pictures is much larger
than the differences between pictures, and swapped colours still give 0.9999. So the mean over the
pictures is subtracted first, and the worst picture and patch decides. The reference's mean is
subtracted on both sides, so that a constant offset shows.

Preprocessing is compared apart from the graph, pixel by pixel with open_clip's transform.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bundle.manifest import Manifest
from taidpt.runtime.errors import InputError, ParityError

__all__ = [
    "BOUND",
    "EXPORT_BOUND",
    "GATED",
    "ExportResult",
    "HeadParity",
    "ParityReport",
    "Sides",
    "centred_cosines",
    "compare",
]

# Least centred cosine. Swapped channels, a missing normalisation and a resize without antialiasing
# stay below 0.99 on random and on embedded weights (tests/export/parity/test_centred_cosine.py).
# An exported graph computes the same sums as PyTorch on the same pixels, so it must reach more.
BOUND = 0.999
EXPORT_BOUND = 0.9999
# Between the pixels of a device and of open_clip's transform, both rounded. Where a sum of the
# first pass is a half but for 1e-5, fp32 rounds it to the other side than Pillow's integers do,
# and neighbours that do so together move a value by two levels in the end: in 16 of 1,500 generated
# pictures, at most 0.11 % of their values, none by three
# (tests/runtime/preprocess/test_resize.py). Swapped channels, a missing normalisation or
# another filter move most values, or some by far more.
_GREY_LEVELS = 1
_GREY_LEVEL_PERCENT = 99
GATED = ("global_features", "patch_features", "scores")
_ROUNDING = 1e-6  # share of the largest value; smaller differences are rounding of fp32
_SCHEMA = 1

Outputs = Mapping[str, npt.NDArray[Any]]
Doubles = npt.NDArray[np.float64]


def centred_cosines(reference: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> Doubles:
    """Cosine of each vector after subtracting the reference's mean over the pictures.

    Args:
        reference, candidate: [N, ..., D], N ≥ 2 pictures.
    Returns:
        [N, ...]. Two vectors that are both tiny beside the largest value count as equal (1), and
        vectors with values that are not finite as opposite (−1).
    """
    if reference.shape != candidate.shape:
        raise ParityError(
            f"results differ in shape: {list(reference.shape)} and {list(candidate.shape)}"
        )
    if len(reference) < 2:
        raise InputError("parity needs at least two pictures, got one: nothing can be subtracted")
    mean = reference.mean(axis=0, dtype=np.float64)
    first, second = reference - mean, candidate - mean
    floor = _ROUNDING * float(np.abs(reference).max()) * reference.shape[-1] ** 0.5
    lengths = np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1)
    both_vanish = (lengths[0] <= floor) & (lengths[1] <= floor)
    product = np.maximum(lengths[0] * lengths[1], np.finfo(np.float64).tiny)
    cosines = np.where(both_vanish, 1.0, (first * second).sum(axis=-1) / product)
    return np.asarray(np.where(np.isfinite(cosines), cosines, -1.0))


@dataclass(frozen=True)
class HeadParity:
    """The parity of one output.

    Attributes:
        name: the output.
        per_picture: the least centred cosine of each picture.
        mean: over all pictures and patches.
        largest_difference: absolute, over all values.
    """

    name: str
    per_picture: tuple[float, ...]
    mean: float
    largest_difference: float

    @property
    def minimum(self) -> float:
        """The least centred cosine over pictures and patches."""
        return min(self.per_picture)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "minimum": self.minimum,
            "mean": self.mean,
            "largest_difference": self.largest_difference,
            "per_picture": list(self.per_picture),
        }


@dataclass(frozen=True)
class ParityReport:
    """All outputs of a candidate against the reference's.

    Attributes:
        reference, candidate: the programs that computed them.
        pictures: their names, in the order of `per_picture`.
        heads: one an output.
        bound: least centred cosine of the gated outputs.
        gated: outputs for which the bound holds.
        notes: further facts for the JSON file.
        grey_levels: difference of each picture's pixels from those of open_clip's transform: the
            largest of 99 % of the values, or the largest of all less one level, whichever is more;
            empty where they were not compared.
    """

    reference: str
    candidate: str
    pictures: tuple[str, ...]
    heads: tuple[HeadParity, ...]
    bound: float = BOUND
    gated: tuple[str, ...] = GATED
    notes: Mapping[str, Any] = field(default_factory=dict)
    grey_levels: tuple[int, ...] = ()

    @classmethod
    def not_run(cls, sides: Sides, notes: Mapping[str, Any]) -> ParityReport:
        """The report of what cannot run on this machine: without figures, marked unverified."""
        notes = {**notes, "verified": False}
        return cls(sides.reference, sides.candidate, sides.pictures, (), 0.0, (), notes)

    @property
    def passed(self) -> bool:
        """Whether every gated output reaches the bound, and pixels are equal to a grey level."""
        return not self.failures() and self.largest_grey_level <= _GREY_LEVELS

    @property
    def largest_grey_level(self) -> int:
        """The worst picture's `grey_levels`; 0 where none were compared."""
        return max(self.grey_levels, default=0)

    def head(self, name: str) -> HeadParity:
        """One output's figures."""
        return next(head for head in self.heads if head.name == name)

    def failures(self) -> tuple[HeadParity, ...]:
        """The gated outputs below the bound."""
        return tuple(h for h in self.heads if h.name in self.gated and not h.minimum >= self.bound)

    def require(self) -> None:
        """Raise unless the bound holds.

        Raises:
            ParityError: names each output below the bound, or the preprocessing, and the picture
                that is worst.
        """
        largest = self.largest_grey_level
        if largest > _GREY_LEVELS:
            raise ParityError(
                "the preprocessing disagrees with open_clip's transform by "
                f"{largest} grey levels on {self.pictures[self.grey_levels.index(largest)]}; "
                f"expected at most {_GREY_LEVELS}"
            )
        failures = self.failures()
        if not failures:
            return
        figures = "; ".join(
            f"{head.name} {head.minimum:.5f} on {self.pictures[_worst(head)]}" for head in failures
        )
        raise ParityError(
            f"{self.candidate} disagrees with {self.reference}: centred cosine {figures}; "
            f"expected at least {self.bound}"
        )

    def to_json(self) -> dict[str, Any]:
        """As the JSON object of parity.json."""
        return {
            "schema": _SCHEMA,
            "kind": "taidpt-parity",
            "measure": "cosine after subtracting the mean over the pictures",
            "reference": self.reference,
            "candidate": self.candidate,
            "bound": self.bound,
            "gated": list(self.gated),
            "passed": self.passed,
            "pictures": list(self.pictures),
            "outputs": {head.name: head.to_json() for head in self.heads},
            **({"grey_levels": list(self.grey_levels)} if self.grey_levels else {}),
            **({"notes": dict(self.notes)} if self.notes else {}),
        }

    def to_bytes(self) -> bytes:
        """As the bytes of parity.json."""
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1, allow_nan=False)
        return text.encode() + b"\n"


@dataclass(frozen=True, repr=False)
class ExportResult:
    """What was written, and how well it agrees with PyTorch."""

    path: Path
    manifest: Manifest
    parity: ParityReport

    @property
    def size(self) -> int:
        """Bytes of all files of the bundle."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    def __repr__(self) -> str:
        tags, model = len(self.manifest.tags), self.manifest.model.name
        precision = self.manifest.provenance.get("precision", "fp32")
        least = min((head.minimum for head in self.parity.heads), default=1.0)
        return (
            f"ExportResult({self.path.name!r}, {tags} tags, {model}, {precision}, "
            f"{self.size / 1e6:.1f} MB, parity {least:.5f})"
        )


@dataclass(frozen=True)
class Sides:
    """Names of the two programs, and of the pictures that both saw."""

    reference: str
    candidate: str
    pictures: tuple[str, ...]


def compare(
    reference: Outputs,
    candidate: Outputs,
    sides: Sides,
    bound: float = BOUND,
    pixels: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None = None,
) -> ParityReport:
    """Compare all outputs that both sides have.

    Args:
        reference, candidate: outputs for the same pixels, by name.
        sides: names for the report.
        bound: least centred cosine.
        pixels: those of open_clip's transform and those of the device, uint8 [N, h, w, 3] each.
    Raises:
        ParityError: a gated output is missing on one side, or differs in shape.
    """
    missing = [name for name in GATED if name not in reference or name not in candidate]
    if missing:
        raise ParityError(f"parity cannot be checked: no output {', '.join(missing)}")
    heads = tuple(
        _compare_head(name, reference[name], candidate[name])
        for name in reference
        if name in candidate
    )
    levels: tuple[int, ...] = ()
    if pixels is not None:
        differences = np.abs(pixels[0].astype(np.int16) - pixels[1])
        rows = differences.reshape(len(differences), -1)
        most = np.percentile(rows, _GREY_LEVEL_PERCENT, axis=1, method="higher")
        levels = tuple(np.maximum(most, rows.max(axis=1) - 1).astype(int).tolist())
    return ParityReport(
        sides.reference, sides.candidate, sides.pictures, heads, bound, grey_levels=levels
    )


def _compare_head(
    name: str, reference: npt.NDArray[Any], candidate: npt.NDArray[Any]
) -> HeadParity:
    cosines = centred_cosines(reference, candidate)
    per_picture = cosines.reshape(len(cosines), -1).min(axis=1)
    difference = np.abs(reference.astype(np.float64) - candidate).max()
    return HeadParity(
        name=name,
        per_picture=tuple(float(value) for value in per_picture),
        mean=float(cosines.mean()),
        largest_difference=float(np.nan_to_num(difference, nan=np.finfo(np.float32).max)),
    )


def _worst(head: HeadParity) -> int:
    values: Sequence[float] = head.per_picture
    return values.index(min(values))

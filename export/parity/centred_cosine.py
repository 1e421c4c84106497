"""Parity with teeth: PyTorch against what the runtime computes, on pictures of full size.

Plain cosine is nearly blind on CLIP features: their mean over all pictures dwarfs what tells one
picture from another, and swapped colours still give 0.9999. So the mean over the pictures (the
reference's, on both sides, so that a constant offset shows) is subtracted first, and the worst
picture and patch decides.
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
    "GATED",
    "ExportResult",
    "HeadParity",
    "ParityReport",
    "Sides",
    "centred_cosines",
    "compare",
]

BOUND = 0.999
GATED = ("global_features", "patch_features", "scores")
_ROUNDING = 1e-6  # of the largest value: what lies below is equal
_SCHEMA = 1

Outputs = Mapping[str, npt.NDArray[Any]]
Doubles = npt.NDArray[np.float64]


def centred_cosines(reference: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> Doubles:
    """Cosine of each vector after subtracting the reference's mean over the pictures.

    Args:
        reference, candidate: [N, ..., D], N ≥ 2 pictures.
    Returns:
        [N, ...]. Vectors that both vanish beside the largest value count as equal (1); not
        finite ones as opposite (−1).
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
    """How one output compares.

    Attributes:
        name: the output.
        per_picture: the least centred cosine of each picture.
        mean: over all pictures and patches.
        largest_difference: of any value.
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
    """Reference against candidate over all outputs.

    Attributes:
        reference, candidate: what computed each side.
        pictures: their names, in the order of `per_picture`.
        heads: one an output.
        bound: least centred cosine of the gated outputs.
        gated: outputs that the bound holds for.
    """

    reference: str
    candidate: str
    pictures: tuple[str, ...]
    heads: tuple[HeadParity, ...]
    bound: float = BOUND
    gated: tuple[str, ...] = GATED
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every gated output holds the bound."""
        return not self.failures()

    def head(self, name: str) -> HeadParity:
        """One output's figures."""
        return next(head for head in self.heads if head.name == name)

    def failures(self) -> tuple[HeadParity, ...]:
        """The gated outputs below the bound."""
        return tuple(h for h in self.heads if h.name in self.gated and not h.minimum >= self.bound)

    def require(self) -> None:
        """Go on only when the bound holds.

        Raises:
            ParityError: naming each output below it and the picture that is worst there.
        """
        failures = self.failures()
        if not failures:
            return
        told = "; ".join(
            f"{head.name} {head.minimum:.5f} on {self.pictures[_worst(head)]}" for head in failures
        )
        raise ParityError(
            f"{self.candidate} disagrees with {self.reference}: centred cosine {told}; "
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
            **({"notes": dict(self.notes)} if self.notes else {}),
        }

    def to_bytes(self) -> bytes:
        """As the bytes of parity.json."""
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1, allow_nan=False)
        return text.encode() + b"\n"


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how well it agrees with PyTorch."""

    path: Path
    manifest: Manifest
    parity: ParityReport

    def __repr__(self) -> str:
        tags, model = len(self.manifest.tags), self.manifest.model.name
        least = min((head.minimum for head in self.parity.heads), default=1.0)
        return f"ExportResult({self.path.name!r}, {tags} tags, {model}, parity {least:.5f})"


@dataclass(frozen=True)
class Sides:
    """The names of what is compared."""

    reference: str
    candidate: str
    pictures: tuple[str, ...]


def compare(
    reference: Outputs, candidate: Outputs, sides: Sides, bound: float = BOUND
) -> ParityReport:
    """Compare all outputs that both sides have.

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
    return ParityReport(sides.reference, sides.candidate, sides.pictures, heads, bound)


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

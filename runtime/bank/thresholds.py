"""Thresholds of many tags as arrays: checked at once, read row by row."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.json_reader import JsonReader

__all__ = [
    "UNCERTAIN",
    "FloatArray",
    "Floats",
    "Table",
    "Threshold",
    "Thresholds",
    "Whole",
    "is_from_texts",
]

FloatArray = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

# Between these probabilities at least one answer in five would be wrong, so a tag is uncertain.
UNCERTAIN = (0.2, 0.8)

# How the sources of thresholds begin that no picture has confirmed: learned from captions, or taken
# from the other tags of such prompts.
_FROM_TEXTS = ("from texts", "from other tags")

Row = TypeVar("Row")


def is_from_texts(source: str) -> bool:
    """Whether a threshold, and the probability map beside it, comes from texts alone."""
    return source.startswith(_FROM_TEXTS)


@dataclass(frozen=True)
class Threshold:
    """The scores at which a tag switches.

    Attributes:
        on: a score of at least this turns the tag on.
        off: a score below this turns it off again, at most `on`.
        source: the origin of the numbers: "default", "from texts", "calibrated", ….
    """

    on: float
    off: float
    source: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.on) and math.isfinite(self.off)):
            raise InputError(f"a threshold must be finite, got on {self.on} and off {self.off}")
        if self.off > self.on:
            raise InputError(
                f"a threshold's off must not exceed its on, got {self.off} > {self.on}"
            )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"on": self.on, "off": self.off, "source": self.source}

    @classmethod
    def from_json(cls, reader: JsonReader) -> Threshold:
        """From a JSON object; BundleError when a key is missing or wrong."""
        on, off, source = reader.number("on"), reader.number("off"), reader.string("source")
        if off > on:
            reader.fail("off", f"at most the on threshold {on:g}")
        return cls(on, off, source)


class Table(Sequence[Row]):
    """A sequence that makes its rows on access; equal to any sequence of equal rows."""

    @abstractmethod
    def _row(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        places = range(len(self))[index]
        return self._row(places) if isinstance(places, int) else tuple(map(self._row, places))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


class Thresholds(Table[Threshold]):
    """C thresholds.

    Attributes:
        on, off: as in `Threshold`, float64 [C]. sources: C strings.
    """

    def __init__(self, on: Floats, off: Floats, sources: Sequence[str]) -> None:
        """Check all thresholds at once.

        Raises:
            InputError: lengths differ, or a threshold is not finite or off above on.
        """
        if not on.shape == off.shape == (len(sources),):
            raise InputError(
                f"thresholds on {list(on.shape)}, off {list(off.shape)} and {len(sources)} sources "
                "should be one a tag"
            )
        self.on, self.off, self.sources = on, off, sources
        wrong = ~(np.isfinite(on) & np.isfinite(off) & (off <= on))
        if wrong.any():
            self._refuse(int(wrong.argmax()))

    @classmethod
    def of(cls, rows: Sequence[Threshold]) -> Thresholds:
        """A table of any sequence; a table is returned unchanged."""
        if isinstance(rows, Thresholds):
            return rows
        pairs = np.array([(row.on, row.off) for row in rows], np.float64).reshape(-1, 2)
        return cls(pairs[:, 0], pairs[:, 1], tuple(row.source for row in rows))

    def take(self, rows: Whole) -> Thresholds:
        """The rows with these indices, int64 [R], in this order."""
        return Thresholds(self.on[rows], self.off[rows], tuple(self.sources[row] for row in rows))

    def join(self, other: Thresholds) -> Thresholds:
        """These rows followed by those of the other table."""
        on, off = np.concatenate([self.on, other.on]), np.concatenate([self.off, other.off])
        return Thresholds(on, off, (*self.sources, *other.sources))

    def __len__(self) -> int:
        return len(self.sources)

    def _row(self, index: int) -> Threshold:
        return Threshold(float(self.on[index]), float(self.off[index]), self.sources[index])

    def _refuse(self, index: int) -> None:
        try:
            self._row(index)
        except InputError as error:
            raise InputError(f"thresholds[{index}]: {error}") from None

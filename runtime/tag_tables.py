"""Thresholds and probability maps of many tags as arrays: checked at once, read one by one."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.json_reader import JsonReader

__all__ = [
    "UNCERTAIN",
    "Facts",
    "Floats",
    "MapJson",
    "ProbabilityMaps",
    "Threshold",
    "Thresholds",
]

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
MapJson = Mapping[str, Any]
Facts = Mapping[str, Sequence[Any] | Floats]

UNCERTAIN = (0.2, 0.8)  # probabilities between these say neither yes nor no

Row = TypeVar("Row")
_POINTS = ("scores", "probabilities")


@dataclass(frozen=True)
class Threshold:
    """Where a tag switches.

    Attributes:
        on: a score of at least this turns the tag on.
        off: a score below this turns it off again, at most `on`.
        source: where the numbers come from: "default", "from texts", "calibrated", ….
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


class _Table(Sequence[Row]):
    """Rows that are made when somebody asks for one; equal to any sequence of equal rows."""

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


class Thresholds(_Table[Threshold]):
    """C thresholds.

    Attributes:
        on, off: as in `Threshold`, float64 [C]. sources: C strings.
    """

    def __init__(self, on: Floats, off: Floats, sources: Sequence[str]) -> None:
        """Check all at once.

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
        """A table of any sequence; a table as it is."""
        if isinstance(rows, Thresholds):
            return rows
        pairs = np.array([(row.on, row.off) for row in rows], np.float64).reshape(-1, 2)
        return cls(pairs[:, 0], pairs[:, 1], tuple(row.source for row in rows))

    def __len__(self) -> int:
        return len(self.sources)

    def _row(self, index: int) -> Threshold:
        return Threshold(float(self.on[index]), float(self.off[index]), self.sources[index])

    def _refuse(self, index: int) -> None:
        try:
            self._row(index)
        except InputError as error:
            raise InputError(f"thresholds[{index}]: {error}") from None


class ProbabilityMaps(_Table[MapJson | None]):
    """C maps from score to probability, straight lines between points; None where there is none.

    A row reads as the JSON of the manifest: `scores`, `probabilities`, and what calibration noted.

    Attributes:
        lengths: how many points each tag's map has, 0 for none, int64 [C].
        scores, probabilities: the points of all maps, one tag after the other, float64 [T].
        facts: what else each of the M maps says: key → M values, None where it says nothing.
    """

    def __init__(self, lengths: Whole, scores: Floats, probabilities: Floats, facts: Facts) -> None:
        """Check all at once.

        Raises:
            InputError: numbers of points differ, scores do not rise, a probability is none.
        """
        self.lengths, self.scores, self.probabilities = lengths, scores, probabilities
        self.facts = facts
        self._ends, self._places = np.cumsum(lengths), np.cumsum(lengths > 0) - 1
        self._check_shapes()
        self._check_points()

    @classmethod
    def of(cls, rows: Sequence[MapJson | None]) -> ProbabilityMaps:
        """A table of any sequence; a table as it is.

        Raises:
            InputError: a map is not one.
        """
        if isinstance(rows, ProbabilityMaps):
            return rows
        present = [row for row in rows if row is not None]
        for index, row in enumerate(rows):
            if row is not None and not _is_whole(row):
                raise InputError(
                    f"probabilities[{index}]: a probability map needs as many probabilities as "
                    "scores, at least one"
                )
        lengths = np.array([0 if row is None else len(row["scores"]) for row in rows], np.int64)
        points = [_joined(row[key] for row in present) for key in _POINTS]
        keys = dict.fromkeys(key for row in present for key in row if key not in _POINTS)
        facts = {key: _column([row.get(key) for row in present]) for key in keys}
        return cls(lengths, points[0], points[1], facts)

    def __len__(self) -> int:
        return len(self.lengths)

    def probability(self, index: int, score: float) -> float | None:
        """The probability of a score of one tag; None where the tag has no map."""
        if not self.lengths[index]:
            return None
        points = self._points(index)
        return float(np.interp(score, self.scores[points], self.probabilities[points]))

    def _row(self, index: int) -> MapJson | None:
        if not self.lengths[index]:
            return None
        points, place = self._points(index), int(self._places[index])
        facts = {key: _plain(column[place]) for key, column in self.facts.items()}
        return {
            "scores": self.scores[points].tolist(),
            "probabilities": self.probabilities[points].tolist(),
            **{key: fact for key, fact in facts.items() if fact is not None},
        }

    def _points(self, index: int) -> slice:
        end = int(self._ends[index])
        return slice(end - int(self.lengths[index]), end)

    def _check_shapes(self) -> None:
        total, maps = int(self.lengths.sum()), int((self.lengths > 0).sum())
        shapes = self.scores.shape, self.probabilities.shape
        within = ((self.lengths >= 0) & (self.lengths <= len(self.scores))).all()
        if not within or shapes != ((total,), (total,)):
            raise InputError("a probability map needs as many probabilities as scores")
        for key, column in self.facts.items():
            if len(column) != maps:
                raise InputError(f"{maps} probability maps have {len(column)} values of {key!r}")

    def _check_points(self) -> None:
        begins = (self._ends - self.lengths)[self.lengths > 0]
        fits = np.isfinite(self.scores) & (self.probabilities >= 0) & (self.probabilities <= 1)
        rises = np.ones(len(fits), bool)
        rises[1:] = np.diff(self.scores) > 0
        rises[begins] = True
        wrong = ~(fits & rises)
        if wrong.any():
            index = int(np.searchsorted(self._ends, wrong.argmax(), "right"))
            raise InputError(
                f"probabilities[{index}]: a probability map needs rising scores and probabilities "
                "in 0 … 1"
            )


def _is_whole(row: MapJson) -> bool:
    scores, values = row.get("scores"), row.get("probabilities")
    kinds = (list, tuple, np.ndarray)
    return (
        isinstance(scores, kinds) and isinstance(values, kinds) and len(scores) == len(values) > 0
    )


def _joined(parts: Iterable[Sequence[float]]) -> Floats:
    try:
        joined = np.array(list(chain.from_iterable(parts)), np.float64)
    except (TypeError, ValueError):
        joined = np.empty((0, 0))
    if joined.ndim != 1:
        raise InputError("a probability map's scores and probabilities should be numbers")
    return joined


def _column(values: list[Any]) -> Sequence[Any] | Floats:
    """Finite numbers, or equally long lists of them, as an array; anything else as it is."""
    try:
        array = np.array(values)
    except ValueError:  # lists of several lengths
        return values
    return array if array.dtype == np.float64 and np.isfinite(array).all() else values


def _plain(fact: Any) -> Any:
    return fact.tolist() if isinstance(fact, (np.ndarray, np.generic)) else fact

"""Maps from score to probability of many tags as arrays: checked at once, read row by row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from taidpt.runtime.bank.thresholds import Floats, Table, Whole
from taidpt.runtime.errors import InputError

__all__ = ["Facts", "MapJson", "ProbabilityMaps"]

MapJson = Mapping[str, Any]
Facts = Mapping[str, Sequence[Any] | Floats]

_POINTS = ("scores", "probabilities")


class ProbabilityMaps(Table[MapJson | None]):
    """C piecewise linear maps from score to probability; None for a tag without a map.

    A row reads as the JSON of the manifest: `scores`, `probabilities`, and other keys that
    calibration wrote.

    Attributes:
        lengths: number of points of each tag's map, 0 for none, int64 [C].
        scores, probabilities: the points of all maps, one tag after the other, float64 [T].
        facts: the other keys of the M maps: key → M values, None for a map without the key.
    """

    def __init__(self, lengths: Whole, scores: Floats, probabilities: Floats, facts: Facts) -> None:
        """Check all maps at once.

        Raises:
            InputError: numbers of points differ, scores do not rise, or a value is no probability.
        """
        self.lengths, self.scores, self.probabilities = lengths, scores, probabilities
        self.facts = facts
        self._ends, self._places = np.cumsum(lengths), np.cumsum(lengths > 0) - 1
        self._check_shapes()
        self._check_points()

    @classmethod
    def of(cls, rows: Sequence[MapJson | None]) -> ProbabilityMaps:
        """A table of any sequence; a table is returned unchanged.

        Raises:
            InputError: a row is not a map.
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

    def take(self, rows: Whole) -> ProbabilityMaps:
        """The rows with these indices, int64 [R], in this order."""
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        shift = (self._ends - self.lengths)[rows] - (ends - lengths)
        points = np.repeat(shift, lengths) + np.arange(lengths.sum())
        places = self._places[rows][lengths > 0]
        facts = {key: _picked(column, places) for key, column in self.facts.items()}
        return ProbabilityMaps(lengths, self.scores[points], self.probabilities[points], facts)

    def join(self, other: ProbabilityMaps) -> ProbabilityMaps:
        """These rows followed by those of the other table."""
        both = (self, other)
        facts = {
            key: _appended(*(one.facts.get(key, [None] * one.present) for one in both))
            for key in {**self.facts, **other.facts}
        }
        return ProbabilityMaps(
            np.concatenate([one.lengths for one in both]),
            np.concatenate([one.scores for one in both]),
            np.concatenate([one.probabilities for one in both]),
            facts,
        )

    @property
    def present(self) -> int:
        """Number of tags that have a map."""
        return int((self.lengths > 0).sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def probability(self, index: int, score: float) -> float | None:
        """The probability of a score of one tag; None where the tag has no map."""
        found = self._interpolate(index, score)
        return None if found is None else float(found)

    def values(self, index: int, scores: Floats) -> Floats | None:
        """The probabilities of scores of one tag, any shape; None where the tag has no map."""
        found: Floats | None = self._interpolate(index, scores)
        return found

    def _interpolate(self, index: int, scores: float | Floats) -> Any:
        if not self.lengths[index]:
            return None
        points = self._points(index)
        return np.interp(scores, self.scores[points], self.probabilities[points])

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
        total, maps = int(self.lengths.sum()), self.present
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
    """Finite numbers, or equally long lists of them, as an array; anything else unchanged."""
    try:
        array = np.array(values)
    except ValueError:  # lists of several lengths
        return values
    return array if array.dtype == np.float64 and np.isfinite(array).all() else values


def _picked(column: Sequence[Any] | Floats, places: Whole) -> Sequence[Any] | Floats:
    return column[places] if isinstance(column, np.ndarray) else [column[at] for at in places]


def _appended(first: Sequence[Any] | Floats, second: Sequence[Any] | Floats) -> Any:
    """One column after the other, as an array where both are arrays of one row shape."""
    columns = [column for column in (first, second) if len(column)]
    if len(columns) < 2:
        return columns[0] if columns else first
    arrays = all(isinstance(column, np.ndarray) for column in columns)
    if arrays and np.shape(first)[1:] == np.shape(second)[1:]:
        return np.concatenate(columns)
    return [_plain(fact) for column in columns for fact in column]


def _plain(fact: Any) -> Any:
    return fact.tolist() if isinstance(fact, (np.ndarray, np.generic)) else fact

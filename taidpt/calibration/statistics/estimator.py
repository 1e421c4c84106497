"""Thresholds and probabilities of every tag from scores that nobody labelled."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics.chances import chances_of
from taidpt.calibration.statistics.decision import Decision, above_all, decide
from taidpt.calibration.statistics.hierarchy import Hint
from taidpt.calibration.statistics.sample import Sample
from taidpt.runtime.errors import InputError
from taidpt.score_file import checked_scores

__all__ = ["MIN_FRAMES", "Calibration", "TagCalibration", "calibrate"]

Floats = npt.NDArray[np.float64]

MIN_FRAMES = 20
_STEADY = 1e-9  # a spread below this share of the whole matrix's counts as constant scores
_FEWEST = 3.0  # independent sightings, before a tag may be called fairly sure
_MOST_EVIDENCE = 4000.0  # frames; with more, the shapes' misfit would outweigh what tags share
_MANY_SIGHTINGS = 10.0  # independent ones, before a tag may be called sure
_SURE, _FAIRLY_SURE = 0.75, 0.5
_SURELY_THERE = 0.9  # no frame above it: a tag that never occurs looks like this as well


@dataclass(frozen=True)
class TagCalibration:
    """What was learned of one tag.

    Attributes:
        name: the tag.
        on: at this score the expected F1 is best.
        off: below this an active tag goes off.
        band: scores between these two have probabilities from 0.2 to 0.8.
        state: "seen", "not seen" (no sign of the tag in these frames) or "constant" (its scores
            do not move, so nothing can be learned).
        expected_share: estimated share of frames that have the tag.
        expected_f1: F1 that the model expects at `on`; 0 when not seen.
        sureness: "high", "medium" or "low". "high" needs ten independent sightings, and more than
            "low" a frame that is most likely to have the tag.
        scores, probabilities: the map from score to probability, straight between its points.
    """

    name: str
    on: float
    off: float
    band: tuple[float, float]
    state: str
    expected_share: float
    expected_f1: float
    sureness: str
    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def probability_map(self) -> dict[str, Any]:
        """The JSON of the map as a bundle's manifest holds it."""
        return {
            "scores": list(self.scores),
            "probabilities": list(self.probabilities),
            "band": list(self.band),
            "state": self.state,
            "expected_share": self.expected_share,
            "sureness": self.sureness,
        }


@dataclass(frozen=True)
class Calibration:
    """All tags, in the order of the scores' columns.

    Attributes:
        frames: how many there were.
        effective_frames: how many independent ones they are worth.
    """

    tags: tuple[TagCalibration, ...]
    frames: int
    effective_frames: float

    @property
    def on(self) -> Floats:
        """The on thresholds, [C]."""
        return np.array([tag.on for tag in self.tags])

    @property
    def expected_macro_f1(self) -> float:
        """Mean expected F1 of the tags that are seen; NaN when none is."""
        seen = [tag.expected_f1 for tag in self.tags if tag.state == "seen"]
        return float(np.mean(seen)) if seen else float("nan")

    def probabilities(self, scores: Floats) -> Floats:
        """Probabilities of scores [N, C], as the runtime gives them."""
        columns = [
            np.interp(scores[:, index], tag.scores, tag.probabilities)
            for index, tag in enumerate(self.tags)
        ]
        return np.stack(columns, axis=1)


def calibrate(
    scores: npt.NDArray[Any],
    names: tuple[str, ...] | None = None,
    hint: Hint | None = None,
    effective_frames: float | None = None,
) -> Calibration:
    """Find every tag's thresholds from scores alone.

    Args:
        scores: merged scores of unlabelled frames, [N, C], at least 20 frames.
        names: C names; None numbers them.
        hint: what texts say about each tag, in units of the tags' spreads.
        effective_frames: how many independent frames these are worth; None means all.
    Raises:
        InputError: too few frames, or scores that are not finite.
    """
    values = checked_scores(scores, "scores")
    if len(values) < MIN_FRAMES:
        raise InputError(
            f"frames to calibrate on: {len(values)}, which is too few; give at least "
            f"{MIN_FRAMES}, better some hundreds"
        )
    names = names or tuple(f"tag {index}" for index in range(values.shape[1]))
    worth = 1.0 if effective_frames is None else min(1.0, effective_frames / len(values))
    moves = _moving(values)
    tags = [_constant(name, values[:, index]) for index, name in enumerate(names)]
    if moves.any():
        hint = None if hint is None else hint.of(moves)
        worth_fitting = min(worth, _MOST_EVIDENCE / len(values))
        chances = chances_of(values[:, moves], hint, worth_fitting)
        moving = np.flatnonzero(moves)
        for place, index in enumerate(moving):
            learned = _learn(names[index], values[:, index], chances[:, place])
            tags[index] = _doubted(learned, worth * len(values), len(moving))
    return Calibration(tuple(tags), len(values), worth * len(values))


def _moving(values: Floats) -> npt.NDArray[np.bool_]:
    """Which tags' scores are not constant, [C]."""
    whole = max(float(np.abs(values).max()), 1e-30)
    return np.asarray(values.std(axis=0) > _STEADY * whole)


def _learn(name: str, scores: Floats, chances: Floats) -> TagCalibration:
    """One tag: its probability as a rising function of the raw score, and the switches."""
    from sklearn.isotonic import isotonic_regression

    order = np.lexsort((chances, scores))
    values = scores[order]
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    means = np.bincount(group, chances[order]) / sizes
    rising = np.clip(isotonic_regression(means, sample_weight=sizes)[group], 0, 1)
    sample = Sample(values[None], np.ones((1, len(values))))
    decision = decide(sample, rising[None])[0]
    seen = decision.seen
    on, off = (decision.on, decision.off) if seen else above_all(values)
    return TagCalibration(
        name=name,
        on=on,
        off=off,
        band=decision.band,
        state="seen" if seen else "not seen",
        expected_share=decision.expected_sightings / len(values),
        expected_f1=decision.expected_f1 if seen else 0.0,
        sureness=_sureness(decision) if seen else "low",
        scores=tuple(decision.curve[0].tolist()),
        probabilities=tuple(decision.curve[1].tolist()),
    )


def _doubted(tag: TagCalibration, effective_frames: float, tags: int) -> TagCalibration:
    """Less sure where sightings are few; not at all where frames are fewer than tags.

    With fewer frames than tags nothing tells what a tag's score owes to the others.
    """
    if effective_frames < tags:
        return dataclasses.replace(tag, sureness="low")
    sightings = tag.expected_share * effective_frames
    if tag.sureness == "low" or sightings >= _MANY_SIGHTINGS:
        return tag
    return dataclasses.replace(tag, sureness="medium" if sightings >= _FEWEST else "low")


def _sureness(decision: Decision) -> str:
    if decision.highest < _SURELY_THERE or decision.expected_f1 < _FAIRLY_SURE:
        return "low"
    return "high" if decision.expected_f1 >= _SURE else "medium"


def _constant(name: str, values: Floats) -> TagCalibration:
    """Scores that never move: the tag stays off, and the map says one half nowhere."""
    top = float(values.max())
    on = top + max(abs(top), 1.0) * 1e-3
    return TagCalibration(name, on, on, (on, on), "constant", 0.0, 0.0, "low", (top,), (0.0,))

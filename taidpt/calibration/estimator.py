"""Thresholds and probabilities of every tag from scores that nobody labelled."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.calibration.decision import above_all, decide
from taidpt.calibration.hierarchy import Hint, compress, fit_family
from taidpt.calibration.mixture import responsibility
from taidpt.calibration.sample import Sample
from taidpt.calibration.score_matrix import checked_scores
from taidpt.calibration.unmixing import are_echoes, unexplained, without_others
from taidpt.runtime.errors import InputError

__all__ = ["MIN_FRAMES", "Calibration", "TagCalibration", "calibrate"]

Floats = npt.NDArray[np.float64]

MIN_FRAMES = 20
_STEADY = 1e-9  # a spread below this share of the whole matrix's counts as constant scores
_FEWEST = 3.0  # independent sightings, before a tag may be called fairly sure
_EXPLAINING_ROUNDS = 2
_MOST_EVIDENCE = 4000.0  # frames; with more, the shapes' misfit would outweigh what tags share
_PRESSED = 0.02  # this near to 0 or 1 a score counts as pressed against it
_TOO_OFTEN = 1.4  # on in so many times the frames that are thought to have the tag
_MANY_SIGHTINGS = 10.0  # independent ones, before a tag may be called sure
_SURE, _FAIRLY_SURE = 0.75, 0.5


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
        sureness: "high", "medium" or "low"; "high" needs ten independent sightings.
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
        chances = _chances(_unsquashed(values[:, moves]), hint, worth_fitting)
        moving = np.flatnonzero(moves)
        for place, index in enumerate(moving):
            learned = _learn(names[index], values[:, index], chances[:, place])
            tags[index] = _doubted(learned, worth * len(values), len(moving))
    return Calibration(tuple(tags), len(values), worth * len(values))


def _moving(values: Floats) -> npt.NDArray[np.bool_]:
    """Which tags' scores are not constant, [C]."""
    whole = max(float(np.abs(values).max()), 1e-30)
    return np.asarray(values.std(axis=0) > _STEADY * whole)


def _unsquashed(scores: Floats) -> Floats:
    """Scores, or their logits where a sigmoid has pressed most of them against 0 and 1, [N, C]."""
    low, high = scores.min(), scores.max()
    pressed = (scores < _PRESSED) | (scores > 1 - _PRESSED)
    if low < 0 or high > 1 or pressed.mean() < 0.5:
        return scores
    apart = np.minimum(scores, 1 - scores)
    least = apart[apart > 0].min(initial=_PRESSED)
    clipped = np.clip(scores, least, 1 - least)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)


def _chances(scores: Floats, hint: Hint | None, worth: float) -> Floats:
    """Probability of each tag in each frame, [N, C].

    Where other tags foretell much of a tag's score, what they add is taken away, beginning with
    the tags that the raw scores show. Where these are but echoes of each other, what others do not
    foretell shows the tags first, and two views must agree: their geometric mean is taken, as what
    looks like the tag in one view alone is most often something else.
    """
    raw = _fitted(scores, hint, worth)
    rest = unexplained(scores)
    if rest is None:
        return raw
    echoes = are_echoes(raw)
    first = _fitted(rest, hint, worth) if echoes else raw
    last = first
    for _ in range(_EXPLAINING_ROUNDS):
        last = _fitted(without_others(scores, last, presence_alone=echoes), hint, worth)
    found = np.asarray(np.sqrt(first * last), np.float64) if echoes else last
    vague = [_says_nothing(*pair) for pair in zip(scores.T, found.T, strict=True)]
    found[:, vague] = raw[:, vague]
    return found


def _says_nothing(scores: Floats, chances: Floats) -> bool:
    """Whether chances hang so little on a tag's score that it would be on far too often."""
    order = np.argsort(-scores)
    found = np.cumsum(chances[order])
    share = found[-1] / len(scores)
    f1 = 2 * found / (np.arange(1, len(scores) + 1) + found[-1])
    on = (int(f1.argmax()) + 1) / len(scores)
    return bool(on > _TOO_OFTEN * share and on > 0.5)


def _fitted(parts: Floats, hint: Hint | None, worth: float) -> Floats:
    """Probability of each tag, [N, C], under mixtures fitted to all tags' parts together.

    A long right tail may be background or a rare tag. The geometric mean is taken of a fit whose
    backgrounds have equal tails and one whose right tails are free.

    Args:
        worth: how much of an independent frame each frame is.
    """
    middle = np.median(parts, axis=0)
    spread = 1.4826 * np.median(np.abs(parts - middle), axis=0)
    spread = np.where(spread > 0, spread, parts.std(axis=0))
    scaled = (parts - np.median(middle)) / np.median(spread)
    sample = compress(scaled)
    weighted = Sample(sample.values, worth * sample.counts)
    chances = np.ones_like(scaled.T)
    for own_tail in (False, True):
        family = fit_family(weighted, hint, own_tail)
        found = responsibility(family.fit.parameters, scaled.T) * family.occurs[:, None]
        chances = chances * np.sqrt(found)
    order = np.argsort(scaled.T, axis=1)
    rising = np.maximum.accumulate(np.take_along_axis(chances, order, 1), axis=1)
    np.put_along_axis(chances, order, rising, 1)
    return np.asarray(chances.T, np.float64)


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
        sureness=_sureness(decision.expected_f1) if seen else "low",
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


def _sureness(expected_f1: float) -> str:
    if expected_f1 >= _SURE:
        return "high"
    return "medium" if expected_f1 >= _FAIRLY_SURE else "low"


def _constant(name: str, values: Floats) -> TagCalibration:
    """Scores that never move: the tag stays off, and the map says one half nowhere."""
    top = float(values.max())
    on = top + max(abs(top), 1.0) * 1e-3
    return TagCalibration(name, on, on, (on, on), "constant", 0.0, 0.0, "low", (top,), (0.0,))

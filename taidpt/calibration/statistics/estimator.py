"""Thresholds and probabilities of every tag from unlabelled scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

from taidpt.calibration.statistics.effective import distinct_frames
from taidpt.calibration.statistics.hierarchy import Family, explained, fit_family
from taidpt.calibration.statistics.mixture import Parameter, responsibility
from taidpt.calibration.statistics.sample import Sample, compress
from taidpt.calibration.statistics.switch import Switch, above_all, choose_switches
from taidpt.runtime.errors import InputError
from taidpt.score_file import checked_scores
from taidpt.score_transforms import are_log_probabilities

__all__ = ["MIN_FRAMES", "Calibration", "TagCalibration", "calibrate"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MIN_FRAMES = 20

# Real scores never have exactly the fitted shapes, and with thousands of frames that misfit would
# count as evidence: one hump is then cut in two. So an independent frame weighs one half, and all
# frames together 400 at most (a coarsened posterior: Miller and Dunson 2019).
_MOST_WEIGHT = 0.5
_MOST_EVIDENCE = 400.0

# A fit that puts a tag into most frames with probabilities that explain less than this share of
# its presence has cut one hump in two. It is not used, and the tag is never called sure.
_BLURRED = 0.5

# In noise all tags are equally likely to occur. So no fit is used unless some tag's odds of
# occurring are this many times the median tag's, which count as 1 at least (the median tag may be
# absent) and as 50 at most (all tags may occur).
_STANDS_OUT = 30.0
_MEDIAN_ODDS = 1.0, 50.0

# Sureness. Expected F1 for high and for medium; independent sightings for high and for medium; and
# the probability that some frame must reach, since a tag that never occurs has none.
_SURE, _FAIRLY_SURE = 0.75, 0.5
_MANY_SIGHTINGS, _FEWEST = 10.0, 3.0
_SURELY_THERE = 0.9

# A tag that is not seen turns on where the tags that are seen lead to expect, if three or more of
# those are at least fairly sure, but in no more than three frames of two hundred (or than the share
# of frames that it is expected in), so that absent tags are on in one of a hundred in the mean. How
# thresholds follow backgrounds is a regression whose slope is drawn towards one half, midway
# between one scale for all tags and one lift for all, with the weight of one tag that lies one
# spread away from the others.
_FEWEST_EXAMPLES = 3
_MOST_ON_UNSEEN = 0.015
_USUAL_SLOPE = 0.5

# Scores within this distance of 0 or 1 are pressed flat by a sigmoid, if more than half of them
# are; a spread below _STEADY, as a share of the whole matrix's, is a constant score.
_PRESSED = 0.02
_STEADY = 1e-9


@dataclass(frozen=True)
class TagCalibration:
    """The result for one tag.

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
        scores, probabilities: the map from score to probability, linear between its points.
        learned: whether thresholds and map rest on these frames. False where scores do not move,
            where there is neither a sign of the tag nor of enough other tags, and for unsure tags
            of a sample that is worth fewer than 20 frames: a bundle keeps what it had.
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
    learned: bool = True

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
    effective_frames: float | None = None,
) -> Calibration:
    """Find every tag's thresholds from scores alone.

    Args:
        scores: merged scores of unlabelled frames, [N, C], at least 20 frames.
        names: C names; None numbers them.
        effective_frames: how many independent frames these are worth; None means all. Copies count
            once in any case.
    Raises:
        InputError: fewer than 20 distinct frames, or scores that are not finite.
    """
    values = checked_scores(scores, "scores")
    if len(values) < MIN_FRAMES:
        raise InputError(
            f"frames to calibrate on: {len(values)}, which is too few; give at least "
            f"{MIN_FRAMES}, better some hundreds"
        )
    distinct = distinct_frames(values)
    if distinct < MIN_FRAMES:
        raise InputError(
            f"the {len(values)} frames are copies of {distinct}: their scores are equal; give at "
            f"least {MIN_FRAMES} different ones. Nothing was changed"
        )
    names = names or tuple(f"tag {index}" for index in range(values.shape[1]))
    worth = min(effective_frames or len(values), distinct) / len(values)
    moves = _moving(values)
    tags = [_constant(name, values[:, index]) for index, name in enumerate(names)]
    if moves.any():
        moving = np.flatnonzero(moves)
        learned = _learn([names[index] for index in moving], values[:, moves], worth)
        for tag, index in zip(learned, moving, strict=True):
            tags[index] = _doubted(tag, worth * len(values), len(moving))
    return Calibration(tuple(tags), len(values), worth * len(values))


def _moving(values: Floats) -> Bools:
    """Which tags' scores are not constant, [C]."""
    whole = max(float(np.abs(values).max()), 1e-30)
    return np.asarray(values.std(axis=0) > _STEADY * whole)


def _learn(names: Sequence[str], values: Floats, worth: float) -> list[TagCalibration]:
    """All tags whose scores move: one fit, then each tag's switches on its own scores.

    The fit is of scores in the form that it suits (`_unpressed`), which may order frames otherwise
    than the scores do. So each tag's chances become rising ones over its scores before it is cut.
    """
    scaled = _standardised(_unpressed(values)).T
    sample = compress(scaled.T)
    weight = min(_MOST_WEIGHT * worth, _MOST_EVIDENCE / len(values))
    family = fit_family(Sample(sample.values, weight * sample.counts))
    chances = _rising(responsibility(family.fit.parameters, scaled), scaled)
    chances *= family.occurs[:, None]
    usable = ~_blurred(family, sample)[:, None] & _some_tag_stands_out(family.occurs)
    order = np.argsort(values.T, axis=1)
    ordered = np.take_along_axis(values.T, order, axis=1)
    by_score = np.take_along_axis(chances, order, axis=1)
    pooled = np.stack([isotonic_regression(row).x for row in by_score])
    switches = choose_switches(Sample(ordered, np.ones_like(ordered)), usable * pooled)
    most_on = np.maximum(_MOST_ON_UNSEEN, chances.mean(axis=1))
    expected = np.maximum(
        _where_others_turn_on(ordered, switches),
        [np.quantile(row, 1 - most) for row, most in zip(ordered, most_on, strict=True)],
    )
    return [_tag(*of) for of in zip(names, ordered, switches, expected, strict=True)]


def _blurred(family: Family, sample: Sample) -> Bools:
    """Tags in most frames whose probabilities hardly depend on the score, [C]."""
    parameters = family.fit.parameters
    mostly = parameters[:, Parameter.LOGIT_SHARE] > 0
    return np.asarray(mostly & (explained(parameters, sample) < _BLURRED))


def _some_tag_stands_out(occurs: Floats) -> bool:
    """Whether these scores are more than noise, by each tag's probability of occurring, [C]."""
    odds = occurs / np.maximum(1 - occurs, 1e-12)
    return bool(odds.max() >= _STANDS_OUT * np.clip(np.median(odds), *_MEDIAN_ODDS))


def _where_others_turn_on(ordered: Floats, switches: Sequence[Switch]) -> Floats:
    """Each tag's threshold as its background and the sure tags' thresholds predict it, [C].

    Args:
        ordered: scores of each tag, rising, [C, N].
    Returns:
        NaN everywhere where too few tags are sure.
    """
    sure = np.array([switch.seen and _sureness(switch) != "low" for switch in switches])
    if sure.sum() < _FEWEST_EXAMPLES:
        return np.full(len(ordered), np.nan)
    spread = float(np.median(np.subtract(*np.quantile(ordered, [0.84, 0.16], axis=1)))) / 2
    middle = np.median(ordered, axis=1)
    on = np.array([switch.on for switch in switches])[sure]
    away, above = middle[sure] - middle[sure].mean(), on - on.mean()
    slope = (away @ above + _USUAL_SLOPE * spread**2) / (away @ away + spread**2)
    return np.asarray(on.mean() + slope * (middle - middle[sure].mean()))


def _standardised(values: Floats) -> Floats:
    """Scores in spreads of a typical tag about a typical background, [N, C]."""
    middle = np.median(values, axis=0)
    spread = 1.4826 * np.median(np.abs(values - middle), axis=0)
    spread = np.where(spread > 0, spread, values.std(axis=0))
    return np.asarray((values - np.median(middle)) / np.median(spread), np.float64)


def _rising(chances: Floats, scores: Floats) -> Floats:
    """Chances that those of no lower score of the tag exceed, [C, N]."""
    order = np.argsort(scores, axis=1)
    highest = np.maximum.accumulate(np.take_along_axis(chances, order, axis=1), axis=1)
    return np.take_along_axis(highest, np.argsort(order, axis=1), axis=1)


def _unpressed(scores: Floats) -> Floats:
    """Scores in the form that the fitted shapes suit, [N, C].

    A sigmoid's probabilities become log odds. A log_softmax leaves how a picture's scores differ,
    but where one tag is high it presses the others down; centred, they lie as before. Other scores
    stay as they are.
    """
    if are_log_probabilities(scores):
        return np.asarray(scores - scores.mean(axis=1, keepdims=True), np.float64)
    pressed = (scores < _PRESSED) | (scores > 1 - _PRESSED)
    if scores.min() < 0 or scores.max() > 1 or pressed.mean() < 0.5:
        return scores
    apart = np.minimum(scores, 1 - scores)
    least = apart[apart > 0].min(initial=_PRESSED)
    clipped = np.clip(scores, least, 1 - least)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)


def _tag(name: str, values: Floats, switch: Switch, expected: float) -> TagCalibration:
    """One tag's result.

    Args:
        values: its scores, rising, [N]. expected: threshold of a tag that is not seen, or NaN.
    """
    on, off = (switch.on, switch.off) if switch.seen else above_all(values)
    if not switch.seen and np.isfinite(expected):
        on, off = float(expected), float(expected) - (on - off) / 2
    return TagCalibration(
        name=name,
        on=on,
        off=off,
        sureness=_sureness(switch) if switch.seen else "low",
        learned=switch.seen or bool(np.isfinite(expected)),
        **switch.facts(switch.seen, len(values)),
    )


def _doubted(tag: TagCalibration, effective_frames: float, tags: int) -> TagCalibration:
    """Less sure where sightings are few; not at all where frames are fewer than tags.

    With fewer frames than tags, what tags share rests on too few frames.
    """
    sightings = tag.expected_share * effective_frames
    sureness = tag.sureness
    if effective_frames < tags or sightings < _FEWEST:
        sureness = "low"
    elif sureness == "high" and sightings < _MANY_SIGHTINGS:
        sureness = "medium"
    learned = tag.learned and (sureness != "low" or effective_frames >= MIN_FRAMES)
    return dataclasses.replace(tag, sureness=sureness, learned=learned)


def _sureness(switch: Switch) -> str:
    if switch.highest < _SURELY_THERE or switch.expected_f1 < _FAIRLY_SURE:
        return "low"
    return "high" if switch.expected_f1 >= _SURE else "medium"


def _constant(name: str, values: Floats) -> TagCalibration:
    """Scores that never move: the tag stays off, and its probability is 0."""
    top = float(values.max())
    on = top + max(abs(top), 1.0) * 1e-3
    band = on, on
    return TagCalibration(name, on, on, band, "constant", 0.0, 0.0, "low", (top,), (0.0,), False)

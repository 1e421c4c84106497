"""A handful of labels on top of the unlabelled estimate."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit

from taidpt.calibration.statistics.estimator import Calibration, TagCalibration
from taidpt.calibration.statistics.sample import compress
from taidpt.calibration.statistics.switch import above_all, choose_switches
from taidpt.runtime.errors import InputError

__all__ = ["PRIOR_STRENGTH", "refine"]

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]

# The unlabelled estimate counts as this many labels: three of each kind hardly move a good estimate
# and a hundred replace it. From ten labels of each kind on a tag is sure.
PRIOR_STRENGTH = 50.0
_SURE_FROM = 10
# The logistic curve is fitted over log odds, which are kept finite, and tilted a little by the
# score so that labels can move a curve that is flat. Labels that somebody searched for may have log
# odds of their own, with this prior spread.
_LEAST_CHANCE = 1e-4
_TILT = 0.1
_SEARCHED = 10.0
# Frames count as looked through whole when they have labels of this share of the labelled tags, and
# of at least so many tags.
_WHOLE, _LEAST_WHOLE = 0.9, 3


def refine(calibration: Calibration, scores: Floats, labels: Targets) -> Calibration:
    """Move each labelled tag's map, and its thresholds with it.

    The map so far is a beta prior of 50 pseudo-labels spread over the tag's scores; Platt's
    logistic curve over its log odds is fitted to those and the labels. People who search for a tag
    find more of it than frames have, so labels may have log odds of their own, which do not stay in
    the map. Where frames were looked through whole, labels count at face value. A tag without
    labels stays as it is. A tag with a positive label is seen; for others the map decides.

    Args:
        scores: of all frames, [N, C]. labels: 1, −1, or 0 for unknown, [N, C].
    """
    if labels.shape != scores.shape:
        raise InputError(
            f"labels {list(labels.shape)} and scores {list(scores.shape)} should be of one shape"
        )
    known = labels != 0
    tags, frames = known.any(axis=0), known.any(axis=1)
    both_kinds = (labels > 0).any() and (labels < 0).any()
    covered = both_kinds and known[np.ix_(frames, tags)].mean() >= _WHOLE
    whole = bool(covered and tags.sum() >= _LEAST_WHOLE)
    refined = [
        _refine_tag(tag, scores[:, index], labels[:, index], whole) if tags[index] else tag
        for index, tag in enumerate(calibration.tags)
    ]
    return dataclasses.replace(calibration, tags=tuple(refined))


def _refine_tag(
    tag: TagCalibration, scores: Floats, labels: Targets, whole: bool
) -> TagCalibration:
    sample = compress(scores[:, None])
    if sample.values[0, 0] == sample.values[0, -1]:
        return tag
    switch = choose_switches(sample, _curve_after(tag, scores, labels, whole, sample.values[0]))[0]
    seen = bool((labels > 0).any()) or switch.seen
    on, off = (switch.on, switch.off) if seen else (tag.on, tag.off)
    if tag.state == "seen" and not seen:
        on, off = above_all(np.sort(scores))
    fewest = int(min((labels > 0).sum(), (labels < 0).sum()))
    sureness = "medium" if fewest >= 1 and tag.sureness == "low" else tag.sureness
    return dataclasses.replace(
        tag,
        on=on,
        off=off,
        sureness="high" if fewest >= _SURE_FROM else sureness,
        learned=tag.learned or seen,
        **switch.facts(seen, len(scores)),
    )


def _curve_after(
    tag: TagCalibration, scores: Floats, labels: Targets, whole: bool, values: Floats
) -> Floats:
    """Probabilities at some scores [B], from pseudo-labels over all scores and the labels, [1, B].

    Args:
        scores, labels: of one tag, [N]. values: [B].
    """
    known = labels != 0
    x = np.concatenate([scores, scores[known]])
    before = np.interp(scores, tag.scores, tag.probabilities)
    y = np.concatenate([np.clip(before, _LEAST_CHANCE, 1), labels[known] > 0])
    weights = np.where(np.arange(len(x)) < len(scores), PRIOR_STRENGTH / len(scores), 1.0)
    tilt = _TILT / scores.std()

    def log_odds(at: Floats) -> Floats:
        chance = np.interp(at, tag.scores, tag.probabilities)
        return np.asarray(logit(np.clip(chance, _LEAST_CHANCE, 1 - _LEAST_CHANCE)) + tilt * at)

    searched = (np.arange(len(x)) >= len(scores)) & (not whole)
    columns = np.stack([np.ones(len(x)), log_odds(x), searched.astype(np.float64)], axis=1)
    level, slope, _ = _logistic(columns, y, weights)
    return np.asarray(expit(level + max(slope, 0.0) * log_odds(values)))[None]


def _logistic(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Coefficients of a logistic regression of y in [0, 1] on columns x."""
    penalty = np.array([1e-6, 1e-3, 1 / _SEARCHED**2])

    def loss(at: Floats) -> tuple[float, Floats]:
        z = x @ at
        value = weights @ (np.logaddexp(0, z) - y * z) + 0.5 * penalty @ (at * at)
        return float(value), x.T @ (weights * (expit(z) - y)) + penalty * at

    return np.asarray(minimize(loss, np.array([0.0, 1.0, 0.0]), jac=True).x)

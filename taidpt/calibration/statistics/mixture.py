"""Two parts of a tag's scores: the background and, above it, the frames with the tag.

Background: a Student t in two pieces, so that it may lean and have long tails. Tag: a Student t in
two pieces further up. All tags are fitted at once, each under a normal prior on its eight
parameters, by scoring steps (the outer products of gradients replace the Hessian: Berndt, Hall,
Hall and Hausman 1974).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, expit, gammaln

from taidpt.calibration.statistics.sample import Sample

__all__ = ["Fit", "NormalPrior", "Parameter", "fit_tags", "log_parts", "responsibility"]

Floats = npt.NDArray[np.float64]

# Degrees of freedom of the upper part: nearly a bell, but one odd frame cannot move it.
_POSITIVE_TAIL = np.array(12.0)
# The softplus bends within a quarter of a spread, so that lifts of one spread stay what they are.
_SHARPNESS = 4.0

# A tag has arrived when a step gains less of its log posterior than this.
_LEAST_GAIN = 1e-4
# Tags that are evaluated at a time: what they need fits a core's second-level cache.
_BLOCK = 16

# Guards of the optimiser, in spreads of a typical tag. They only keep a step from leaving the range
# in which exponentials are finite; no sensible fit comes near them. Tails run from nearly Cauchy
# (2.2 degrees of freedom) to nearly normal (60).
_MAX_STEP = 1.0
_BOUNDS = np.array(
    [
        [-60, 60],
        [-4, 4],
        [-4, 4],
        [-60, 80],
        [-4, 4],
        [-12, 6],
        [np.log(2.2), np.log(60)],
        [-1, 1],
    ]
)


class Parameter:
    """Columns of a parameter matrix [C, 8]: places and spreads in units of the scores."""

    CENTRE = 0
    LOG_LEFT = 1
    LOG_RIGHT = 2
    PLACE = 3
    LOG_WIDENING = 4
    LOGIT_SHARE = 5
    LOG_TAIL = 6
    LEAN = 7
    COUNT = 8


@dataclass(frozen=True)
class NormalPrior:
    """A prior on the eight parameters of every tag: mean [8] or [C, 8], covariance [8, 8]."""

    mean: Floats
    covariance: Floats


@dataclass(frozen=True)
class Fit:
    """The most likely parameters [C, 8], their covariance [C, 8, 8], and log posterior [C]."""

    parameters: Floats
    covariance: Floats
    log_posterior: Floats


def responsibility(parameters: Floats, values: Floats) -> Floats:
    """Probability that a score comes from the upper part, [..., B]."""
    (background, _), (positive, _) = log_parts(parameters, values)
    share = parameters[..., Parameter.LOGIT_SHARE, None]
    return np.asarray(expit(share + positive - background), np.float64)


def fit_tags(sample: Sample, start: Floats, prior: NormalPrior, steps: int = 30) -> Fit:
    """Climb to the most likely parameters of all tags at once, from `start` [C, 8].

    A tag whose step gained next to nothing stays where it is, so that most steps are those of the
    few tags that still move.
    """
    precision = np.asarray(np.linalg.inv(prior.covariance), np.float64)
    theta = np.clip(start, *_BOUNDS.T)
    means = np.broadcast_to(prior.mean, theta.shape)
    damping = np.full(len(theta), 1e-2)
    value, gradient, fisher = _posterior(sample, theta, means, precision)
    moving = np.arange(len(theta))
    for _ in range(steps):
        ridge = damping[moving, None, None] * (fisher[moving] * np.eye(Parameter.COUNT))
        step = np.linalg.solve(fisher[moving] + ridge, gradient[moving, :, None])[..., 0]
        largest = np.abs(step).max(axis=1, keepdims=True)
        step *= np.minimum(1, _MAX_STEP / np.maximum(largest, 1e-12))
        trial = np.clip(theta[moving] + step, *_BOUNDS.T)
        new = _posterior(sample.of_tags(moving), trial, means[moving], precision)
        gain = new[0] - value[moving]
        better = gain > 0
        rows = moving[better]
        damping[rows] *= 0.3
        refused = moving[~better]
        damping[refused] = np.minimum(damping[refused] * 6 + 1e-3, 1e6)
        theta[rows] = trial[better]
        value[rows], gradient[rows], fisher[rows] = (part[better] for part in new)
        moving = moving[~better | (gain >= _LEAST_GAIN)]
        if not len(moving):
            break
    return Fit(theta, np.asarray(np.linalg.inv(fisher), np.float64), value)


def _posterior(
    sample: Sample, theta: Floats, means: Floats, precision: Floats
) -> tuple[Floats, Floats, Floats]:
    """Log posterior [C], its gradient [C, 8] and the curvature that replaces minus the Hessian."""
    blocks = [slice(first, first + _BLOCK) for first in range(0, len(theta), _BLOCK)]
    parts = [
        _posterior_of(sample.of_tags(rows), theta[rows], means[rows], precision) for rows in blocks
    ]
    value, gradient, fisher = (np.concatenate(part) for part in zip(*parts, strict=True))
    return value, gradient, fisher


def _posterior_of(
    sample: Sample, theta: Floats, means: Floats, precision: Floats
) -> tuple[Floats, Floats, Floats]:
    likelihood, scores = _likelihood(theta, sample.values)
    away = theta - means
    penalty = 0.5 * np.einsum("ci,ij,cj->c", away, precision, away)
    weighted = scores * sample.counts[:, None]
    gradient = weighted.sum(2) - away @ precision
    fisher = np.matmul(weighted, scores.transpose(0, 2, 1)) + precision
    return (sample.counts * likelihood).sum(1) - penalty, gradient, fisher


def _likelihood(theta: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Log likelihood of every value [C, B] and its gradient [C, 8, B]."""
    (lower, lower_slope), (upper, upper_slope) = log_parts(theta, values)
    logit = theta[:, Parameter.LOGIT_SHARE, None]
    lower = lower - np.logaddexp(0, logit)
    upper = upper - np.logaddexp(0, -logit)
    total = np.logaddexp(lower, upper)
    seen = np.exp(upper - total)
    slope = (1 - seen)[:, None] * lower_slope + seen[:, None] * upper_slope
    slope[:, Parameter.LOGIT_SHARE] = seen - expit(logit)
    return total, slope


def log_parts(theta: Floats, values: Floats) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Log density [..., B] and its gradient [..., 8, B] of the background and of the upper part."""
    column = np.moveaxis(theta, -1, 0)[..., None]
    left, right = np.exp(column[Parameter.LOG_LEFT]), np.exp(column[Parameter.LOG_RIGHT])
    tail = np.exp(column[Parameter.LOG_TAIL])
    centred = values - column[Parameter.CENTRE]
    below = centred < 0
    side = np.where(below, left, right)
    z = centred / side
    square = z * z
    pull = (tail + 1) / (tail + square)
    width, width_slope = _half_width(tail)
    left_share = left / (left + right)
    bell = _log_bell(square, tail)
    lower = bell - np.log((left + right) * width)
    slope = np.zeros((*z.shape[:-1], Parameter.COUNT, z.shape[-1]))
    slope[..., Parameter.CENTRE, :] = pull * z / side
    slope[..., Parameter.LOG_LEFT, :] = below * pull * square - left_share
    slope[..., Parameter.LOG_RIGHT, :] = ~below * pull * square - (1 - left_share)
    # the bell's logarithm is a part of its derivative by the tail
    by_tail = pull * square / 2 + bell * tail / (tail + 1)
    slope[..., Parameter.LOG_TAIL, :] = by_tail - width_slope

    # A softplus keeps the upper part above the background's centre.
    above = _SHARPNESS * (column[Parameter.PLACE] - column[Parameter.CENTRE])
    lift, moves = np.logaddexp(0, above) / _SHARPNESS, expit(above)
    width = np.sqrt(left * right) * np.exp(column[Parameter.LOG_WIDENING])
    lean = column[Parameter.LEAN]
    is_below = centred < lift
    spread = np.where(is_below, width * np.exp(lean), width * np.exp(-lean))
    z = (centred - lift) / spread
    pull = (_POSITIVE_TAIL + 1) / (_POSITIVE_TAIL + z * z)
    upper = _log_bell(z * z, _POSITIVE_TAIL) - np.log(
        2 * np.cosh(lean) * _half_width(_POSITIVE_TAIL)[0] * width
    )
    pulled, stretched = pull * z / spread, pull * z * z
    upper_slope = np.zeros_like(slope)
    upper_slope[..., Parameter.CENTRE, :] = (1 - moves) * pulled
    upper_slope[..., Parameter.PLACE, :] = moves * pulled
    upper_slope[..., Parameter.LOG_WIDENING, :] = stretched - 1
    upper_slope[..., Parameter.LOG_LEFT, :] = (stretched - 1) / 2
    upper_slope[..., Parameter.LOG_RIGHT, :] = (stretched - 1) / 2
    upper_slope[..., Parameter.LEAN, :] = np.where(is_below, stretched, -stretched) - np.tanh(lean)
    return (lower, slope), (upper, upper_slope)


def _log_bell(square: Floats, tail: Floats) -> Floats:
    """Log density of a Student t at ±√square, scaled to 1 at zero."""
    return np.asarray(-(tail + 1) / 2 * np.log1p(square / tail))


def _half_width(tail: Floats) -> tuple[Floats, Floats]:
    """Area under half a Student t of height 1 at zero, and d log area / d log tail."""
    log_area = gammaln(tail / 2) - gammaln((tail + 1) / 2) + 0.5 * np.log(np.pi * tail)
    slope = tail / 2 * (digamma(tail / 2) - digamma((tail + 1) / 2)) + 0.5
    return np.asarray(np.exp(log_area) / 2), np.asarray(slope)

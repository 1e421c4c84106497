"""The shape of a tag's scores: a background and, above it, what has the tag.

Background: a Student t in two pieces, so that it may lean and have long tails. Tag seen: a
Student t further up. All tags are fitted at once, each under the same normal prior on its eight
parameters, by scoring steps (the outer products of gradients stand for the Hessian: Berndt, Hall,
Hall and Hausman 1974).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, expit, gammaln

from taidpt.calibration.statistics.sample import Sample

__all__ = [
    "Fit",
    "NormalPrior",
    "Parameter",
    "fit_tags",
    "log_densities",
    "responsibility",
]

Floats = npt.NDArray[np.float64]

_POSITIVE_TAIL = np.array(12.0)
_MAX_STEP = 1.0
_BOUNDS = np.array(
    [[-60, 60], [-4, 4], [-4, 4], [-2.5, 5], [-4, 4], [-12, 6], [np.log(2.2), np.log(60)], [-2, 2]]
)


class Parameter:
    """Columns of a parameter matrix [C, 8]: place and spreads in units of the scores."""

    CENTRE = 0
    LOG_LEFT = 1
    LOG_RIGHT = 2
    LOG_LIFT = 3
    LOG_EFFECT = 4
    LOGIT_SHARE = 5
    LOG_TAIL = 6
    LOG_TAIL_STEP = 7
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


def log_densities(parameters: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Log density of background and of tag seen.

    Args:
        parameters: [..., 8]. values: [..., B].
    Returns:
        two arrays [..., B].
    """
    background, positive = _pieces(parameters, values)
    return background[0], positive[0]


def responsibility(parameters: Floats, values: Floats) -> Floats:
    """Probability that a score comes from the upper part, [..., B]."""
    background, positive = log_densities(parameters, values)
    share = parameters[..., Parameter.LOGIT_SHARE, None]
    result: Floats = expit(share + positive - background)
    return result


def fit_tags(sample: Sample, start: Floats, prior: NormalPrior, steps: int = 30) -> Fit:
    """Climb to the most likely parameters of all tags at once.

    Args:
        start: where to begin, [C, 8].
    """
    precision = np.asarray(np.linalg.inv(prior.covariance), np.float64)
    theta = _bounded(start)
    damping = np.full(len(theta), 1e-2)
    value, gradient, fisher = _posterior(sample, theta, prior.mean, precision)
    for _ in range(steps):
        ridge = damping[:, None, None] * _diagonal(fisher)
        step = np.linalg.solve(fisher + ridge, gradient[..., None])[..., 0]
        largest = np.abs(step).max(axis=1, keepdims=True)
        trial = _bounded(theta + step * np.minimum(1, _MAX_STEP / np.maximum(largest, 1e-12)))
        new = _posterior(sample, trial, prior.mean, precision)
        better = new[0] > value
        damping = np.where(better, damping * 0.3, np.minimum(damping * 6 + 1e-3, 1e6))
        theta = np.where(better[:, None], trial, theta)
        gain = np.where(better, new[0] - value, 0)
        value = np.where(better, new[0], value)
        gradient = np.where(better[:, None], new[1], gradient)
        fisher = np.where(better[:, None, None], new[2], fisher)
        if better.any() and gain.max() < 1e-4:
            break
    return Fit(theta, np.asarray(np.linalg.inv(fisher), np.float64), value)


def _posterior(
    sample: Sample, theta: Floats, mean: Floats, precision: Floats
) -> tuple[Floats, Floats, Floats]:
    """Log posterior [C], its gradient [C, 8] and the curvature that stands for minus Hessian."""
    likelihood, scores = _likelihood(theta, sample.values)
    away = theta - mean
    value = (sample.counts * likelihood).sum(1) - 0.5 * np.einsum(
        "ci,ij,cj->c", away, precision, away
    )
    weighted = scores * sample.counts[..., None]
    gradient = weighted.sum(1) - away @ precision
    fisher = np.matmul(weighted.transpose(0, 2, 1), scores) + precision
    return value, gradient, fisher


def _likelihood(theta: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Log likelihood of every value [C, B] and its gradient [C, B, 8]."""
    (lower, lower_slope), (upper, upper_slope) = _pieces(theta, values)
    logit = theta[:, Parameter.LOGIT_SHARE, None]
    lower = lower - np.logaddexp(0, logit)
    upper = upper - np.logaddexp(0, -logit)
    total = np.logaddexp(lower, upper)
    seen = np.exp(upper - total)
    slope = (1 - seen)[..., None] * lower_slope + seen[..., None] * upper_slope
    slope[..., Parameter.LOGIT_SHARE] = seen - expit(logit)
    return total, slope


def _pieces(theta: Floats, values: Floats) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Log density and its gradient [..., B, 8] of the background and of the upper part."""
    column = np.moveaxis(theta, -1, 0)[..., None]
    left, right = np.exp(column[Parameter.LOG_LEFT]), np.exp(column[Parameter.LOG_RIGHT])
    lift, effect = np.exp(column[Parameter.LOG_LIFT]), np.exp(column[Parameter.LOG_EFFECT])
    spread = np.sqrt(left * right + effect**2)
    left_tail = np.exp(column[Parameter.LOG_TAIL])
    right_tail = left_tail * np.exp(column[Parameter.LOG_TAIL_STEP])
    centred = values - column[Parameter.CENTRE]
    below = centred < 0
    side, tail = np.where(below, left, right), np.where(below, left_tail, right_tail)
    z = centred / side
    pull = (tail + 1) / (tail + z * z)
    (left_norm, left_norm_slope), (right_norm, right_norm_slope) = map(
        _half_width, (left_tail, right_tail)
    )
    left_share = left * left_norm / (left * left_norm + right * right_norm)
    whole = np.log(left * left_norm + right * right_norm)
    lower = _log_bell(z, tail) - whole
    slope = np.zeros((*z.shape, Parameter.COUNT))
    slope[..., Parameter.CENTRE] = pull * z / side
    slope[..., Parameter.LOG_LEFT] = below * pull * z * z - left_share
    slope[..., Parameter.LOG_RIGHT] = ~below * pull * z * z - (1 - left_share)
    bend = tail * _tail_slope(z, tail)
    right_bend = ~below * bend - (1 - left_share) * right_norm_slope
    slope[..., Parameter.LOG_TAIL] = below * bend - left_share * left_norm_slope + right_bend
    slope[..., Parameter.LOG_TAIL_STEP] = right_bend

    z = (centred - lift) / spread
    pull = (_POSITIVE_TAIL + 1) / (_POSITIVE_TAIL + z * z)
    upper = _log_bell(z, _POSITIVE_TAIL) - np.log(2 * _half_width(_POSITIVE_TAIL)[0] * spread)
    upper_slope = np.zeros_like(slope)
    upper_slope[..., Parameter.CENTRE] = pull * z / spread
    upper_slope[..., Parameter.LOG_LIFT] = lift * pull * z / spread
    widening = (pull * z * z - 1) / spread**2
    upper_slope[..., Parameter.LOG_EFFECT] = widening * effect**2
    upper_slope[..., Parameter.LOG_LEFT] = upper_slope[..., Parameter.LOG_RIGHT] = (
        widening * left * right / 2
    )
    return (lower, slope), (upper, upper_slope)


def _log_bell(z: Floats, tail: Floats) -> Floats:
    """Log density of a Student t, but for its height, which is 1 at zero."""
    return np.asarray(-(tail + 1) / 2 * np.log1p(z * z / tail))


def _half_width(tail: Floats) -> tuple[Floats, Floats]:
    """Area under half a Student t whose height at zero is 1, and d log area / d log tail."""
    log_area = gammaln(tail / 2) - gammaln((tail + 1) / 2) + 0.5 * np.log(np.pi * tail)
    slope = tail / 2 * (digamma(tail / 2) - digamma((tail + 1) / 2)) + 0.5
    return np.asarray(np.exp(log_area) / 2), np.asarray(slope)


def _tail_slope(z: Floats, tail: Floats) -> Floats:
    """Derivative of the log density by the degrees of freedom, where its height at zero is 1."""
    ratio = z * z / tail
    result: Floats = 0.5 * ((tail + 1) / tail * ratio / (1 + ratio) - np.log1p(ratio))
    return result


def _bounded(theta: Floats) -> Floats:
    return np.clip(theta, _BOUNDS[:, 0], _BOUNDS[:, 1])


def _diagonal(matrices: Floats) -> Floats:
    return matrices * np.eye(matrices.shape[-1])

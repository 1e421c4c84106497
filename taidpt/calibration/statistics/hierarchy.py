"""Tags share their shape: an empirical-Bayes prior over the mixtures of all tags.

Where tags are alike the learned prior is narrow, and a rare tag is cut where the others are; where
they differ it is wide, and each tag's own scores decide. The prior includes how the place of
frames with a tag follows the tag's background, so it learns whether tags share one scale (as heads
trained on labels do) or one lift above their backgrounds. Beside each mixture a background alone is
fitted: the evidence for one against the other is the probability that the tag occurs at all.

A tag teaches the others only as far as it occurs and its score explains its presence. One hump
that a fit cuts in two explains little, so such cuts do not spread from tag to tag.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from taidpt.calibration.statistics.mixture import (
    Fit,
    NormalPrior,
    Parameter,
    fit_tags,
    responsibility,
)
from taidpt.calibration.statistics.sample import TYPICAL_LIFT, Sample

__all__ = ["Family", "explained", "fit_family"]

Floats = npt.NDArray[np.float64]

# Cost: rounds of fit and prior, after which hardly anything moves; the rounds that try all starting
# points again, as a tag in most frames is only found under a learned prior, and by how much in log
# posterior another fit must be better, as one hump cut in two hardly is; and a mean's largest step.
_ROUNDS = 10
_RESTARTS = (1, 5)
_MARGIN = 5.0
_MAX_MEAN_STEP = 0.5

# The prior before any score, in spreads of a typical tag: centre, log left, log right, place, log
# widening, logit share, log tail. One frame in 15 has the tag, tails are light. _SPREAD is how
# far tags differ, and counts as _STRENGTH tags; _DOUBT is how uncertain _MEAN is; _START is the
# width of the first prior, in which tags share a lift. The share's doubt and start are narrow, as a
# first guess of "half of the frames" is how a hump is cut in two.
_MEAN = np.array([0.0, 0.0, 0.05, TYPICAL_LIFT, 0.35, -2.7, np.log(15.0)])
_SPREAD = np.array([0.2, 0.15, 0.15, 0.5, 0.15, 1.0, 0.3])
_DOUBT = np.array([4.0, 0.6, 0.5, 1.5, 0.1, 0.8, 0.6])
_START = np.array([4.0, 0.6, 0.5, 1.0, 0.2, 0.7, 0.6])
_STRENGTH = 6.0

# A tag teaches where its score explains half as much of its presence as the best tags' scores do
# (of the best tenth), and in full from nine tenths on. One hump cut in two explains 0.4 to 0.5, a
# good tag 0.8 to 1; where all tags are weak, the best of them still teach.
_BEST = 0.9
_TEACHES_FROM, _TEACHES_FULLY = 0.5, 0.9
_LEAST_LESSON = 0.02

# Before any score, nine tags of ten occur. From this round on a tag may be found not to. A share
# of e⁻¹² is none.
_OCCURS = 0.9
_ABSENT_FROM = 2
_NOWHERE, _NOWHERE_SPREAD = -12.0, 0.01


@dataclass(frozen=True)
class Family:
    """All tags' mixtures, [C, 7], and the probability that each tag occurs, [C]."""

    parameters: Floats
    occurs: Floats


def fit_family(sample: Sample) -> Family:
    """Fit every tag's mixture and the prior, in turns.

    Args:
        sample: scores in units of a tag's spread, about zero.
    """
    prior = _first_prior()
    fit = _best_fit(sample, prior, _starts(sample))
    occurs = np.ones(len(sample.values))
    for round_ in range(_ROUNDS):
        prior = _learn_prior(fit, prior, np.maximum(occurs * _teaching(fit, sample), _LEAST_LESSON))
        again = _starts(sample) if round_ in _RESTARTS else []
        fit = _best_fit(sample, prior, [fit.parameters, *again], 12, _MARGIN)
        if round_ >= _ABSENT_FROM:
            occurs = _occurs(sample, fit, prior)
    return Family(fit.parameters, occurs)


def explained(parameters: Floats, sample: Sample) -> Floats:
    """Share of each tag's presence that its score explains, [C].

    It is the variance of the probabilities over that of a yes or no of the same mean: 1 where
    every frame is certain, 0 where the probability does not depend on the score.
    """
    seen = responsibility(parameters, sample.values)
    weights = sample.counts / sample.counts.sum(1, keepdims=True)
    share = (weights * seen).sum(1)
    doubt = (weights * seen * (1 - seen)).sum(1)
    return np.asarray(1 - doubt / np.maximum(share * (1 - share), 1e-12))


def _first_prior() -> NormalPrior:
    covariance = np.diag(_START**2)
    shared = covariance[Parameter.CENTRE, Parameter.CENTRE]
    covariance[Parameter.CENTRE, Parameter.PLACE] = shared
    covariance[Parameter.PLACE, Parameter.CENTRE] = shared
    covariance[Parameter.PLACE, Parameter.PLACE] += shared
    return NormalPrior(_MEAN, covariance)


def _teaching(fit: Fit, sample: Sample) -> Floats:
    """How far each tag teaches the others, from 0 to 1, [C]."""
    share = explained(fit.parameters, sample)
    best = max(float(np.quantile(share, _BEST)), 1e-9)
    span = _TEACHES_FULLY - _TEACHES_FROM
    return np.clip((share / best - _TEACHES_FROM) / span, 0.0, 1.0)


def _occurs(sample: Sample, fit: Fit, prior: NormalPrior) -> Floats:
    """Probability that each tag occurs, by its mixture's evidence against a background alone."""
    at = Parameter.LOGIT_SHARE
    mean, covariance, start = prior.mean.copy(), prior.covariance.copy(), fit.parameters.copy()
    mean[at] = start[:, at] = _NOWHERE
    covariance[at, :] = covariance[:, at] = 0.0
    covariance[at, at] = _NOWHERE_SPREAD**2
    start[:, Parameter.CENTRE] = sample.quantile(0.5)
    alone = NormalPrior(mean, covariance)
    background = fit_tags(sample, start, alone)
    evidence = _log_evidence(fit, prior) - _log_evidence(background, alone)
    return np.asarray(expit(evidence + logit(_OCCURS)), np.float64)


def _log_evidence(fit: Fit, prior: NormalPrior) -> Floats:
    """Log evidence of each tag's fit by Laplace's method, without its constant, [C]."""
    width = np.linalg.slogdet(fit.covariance)[1] - np.linalg.slogdet(prior.covariance)[1]
    return np.asarray(fit.log_posterior + 0.5 * width, np.float64)


def _learn_prior(fit: Fit, prior: NormalPrior, weights: Floats) -> NormalPrior:
    """A Newton step on the mean, because expectation–maximisation crawls, and one on the spread."""
    tags = weights.sum()
    doubt = np.tensordot(weights, fit.covariance, 1)
    precision = np.linalg.inv(prior.covariance)
    trust = np.diag(1 / _DOUBT**2)
    gradient = weights @ (fit.parameters - prior.mean) @ precision + trust @ (_MEAN - prior.mean)
    curvature = tags * precision - precision @ doubt @ precision + trust
    step = np.linalg.solve(curvature, gradient)
    mean = prior.mean + np.clip(step, -_MAX_MEAN_STEP, _MAX_MEAN_STEP)
    away = fit.parameters - mean
    scatter = (weights[:, None] * away).T @ away + doubt
    own = _STRENGTH * np.diag(_SPREAD**2)
    return NormalPrior(mean, (scatter + own) / (tags + _STRENGTH))


def _best_fit(
    sample: Sample, prior: NormalPrior, starts: list[Floats], steps: int = 30, margin: float = 0.0
) -> Fit:
    """Each tag's best fit from some starting points, [C, 7] each; `margin` favours the first."""
    fits = [fit_tags(sample, start, prior, steps) for start in starts]
    found = np.array([fit.log_posterior for fit in fits])
    found[0] += margin
    best = found.argmax(axis=0)
    kept = (best, np.arange(len(best)))
    return Fit(
        np.stack([fit.parameters for fit in fits])[kept],
        np.stack([fit.covariance for fit in fits])[kept],
        np.stack([fit.log_posterior for fit in fits])[kept],
    )


def _starts(sample: Sample) -> list[Floats]:
    """A tag seen seldom, at times, and mostly."""
    found = []
    for low, high, share in ((0.5, 0.999, -4.0), (0.3, 0.9, -1.5), (0.1, 0.7, 1.0)):
        centre, above = sample.quantile(low), sample.quantile(high)
        theta = np.tile(_MEAN, (len(centre), 1))
        theta[:, Parameter.CENTRE] = centre
        theta[:, Parameter.PLACE] = np.maximum(above, centre + 1.0)
        theta[:, Parameter.LOGIT_SHARE] = share
        found.append(theta)
    return found

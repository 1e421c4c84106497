"""Tags share their shape: an empirical-Bayes prior over the mixtures of all tags.

Where tags are alike the learned prior is narrow, and a rare tag is cut where the others are; where
they differ it is wide, and each tag's own scores decide. The prior includes how the place of
frames with a tag follows the tag's background, so it learns whether tags share one scale (as heads
trained on labels do) or one lift above their backgrounds. Beside each mixture a background alone is
fitted: the evidence for one against the other is the probability that the tag occurs at all.

A tag teaches the others only as far as it occurs and its score explains its presence. One hump
that a fit cuts in two explains little, so such cuts do not spread from tag to tag.

Scores alone cannot tell a family of frequent tags from one whose every hump is cut in two: both fit
equally well. What can is how many tags a picture shows, so that number is assumed, not learned.
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

# Cost: rounds of fit and prior (nothing moves after about ten), the round that tries other starting
# points under the learned prior, and how many tags the prior is learned from.
_ROUNDS = 14
_RESTART = 1
_TEACHERS = 600
_TAUGHT_ROUNDS = 3
_MAX_MEAN_STEP = 0.5

# The prior before any score, in spreads of a typical tag: centre, log left, log right, place, log
# widening, logit share, log tail, lean. Frames with the tag lie 3.5 spreads above the background
# (half of that is beyond any threshold's help), tails are light; the mean share depends on the
# number of tags. _SPREAD is how far tags differ, and counts as _STRENGTH tags; _DOUBT is how
# uncertain _MEAN is; _START is the width of the first prior, in which tags share a lift. The
# share's start is narrow, as a first guess of "half of the frames" is how a hump is cut in two.
_MEAN = np.array([0.0, 0.0, 0.05, TYPICAL_LIFT, 0.35, np.nan, np.log(15.0), 0.1])
_SPREAD = np.array([0.2, 0.15, 0.15, 0.5, 0.15, 1.0, 0.3, 0.08])
_DOUBT = np.array([4.0, 0.6, 0.5, 1.5, 0.1, 0.3, 0.6, 0.15])
_START = np.array([4.0, 0.6, 0.5, 1.0, 0.2, 0.7, 0.6, 0.1])
_STRENGTH = 6.0

# A picture shows about this many of the listed tags, however long the list: 1.4 to 3.7 in VOC2007,
# COCO and Flickr8k with NUS-WIDE's names. Of short lists this says little: a tag is expected in a
# tenth of the frames at most. Shares are skewed, with a mean of e^½ times the median. The prior may
# learn that tags are rarer, never that they are more frequent; a single tag may be.
_TAGS_A_FRAME = 1.5
_MOST_SHARE = 0.1

# A tag teaches where its score explains half as much of its presence as the best tags' scores do
# (of the best tenth), and in full from nine tenths on. One hump cut in two explains 0.4 to 0.5, a
# good tag 0.8 to 1; where all tags are weak, the best of them still teach.
_BEST = 0.9
_TEACHES_FROM, _TEACHES_FULLY = 0.5, 0.9
_LEAST_LESSON = 0.02

# Tags that do not occur: from this round on they may be found out, half of the tags are taken for
# such at first, and the share is then learned with one absent tag and nine others as prior counts.
# A share of e⁻¹² is none.
_ABSENT_FROM = 2
_ABSENT_AT_FIRST = 0.5
_ABSENT_PRIOR = (1.0, 9.0)
_NOWHERE, _NOWHERE_SPREAD = -12.0, 0.01


@dataclass(frozen=True)
class Family:
    """All tags' mixtures, the shared prior, and the probability that each tag occurs, [C]."""

    fit: Fit
    prior: NormalPrior
    occurs: Floats


def fit_family(sample: Sample) -> Family:
    """Fit every tag's mixture and the prior; of very many tags, the prior is learned from some.

    Args:
        sample: scores in units of a tag's spread, about zero.
    """
    some = slice(None, None, -(-len(sample.values) // _TEACHERS))
    teachers = sample.of_tags(some)
    family, absent = _learn_family(teachers, _mean_before(len(sample.values)))
    if len(teachers.values) == len(sample.values):
        return family
    return _taught(sample, family.prior, absent)


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


def _mean_before(tags: int) -> Floats:
    """The prior mean of a list of so many tags before any score, [8]."""
    mean = _MEAN.copy()
    mean[Parameter.LOGIT_SHARE] = logit(min(_TAGS_A_FRAME / tags, _MOST_SHARE) * np.exp(-0.5))
    return np.asarray(mean, np.float64)


def _learn_family(sample: Sample, before: Floats) -> tuple[Family, float]:
    """Mixtures and prior in turns, from the prior mean `before`, [8]; the share of absent tags."""
    prior = _first_prior(before)
    fit = _best_of([fit_tags(sample, start, prior) for start in _starts(sample)])
    occurs, absent, alone = np.ones(len(sample.values)), _ABSENT_AT_FIRST, _alone(sample, fit)
    for round_ in range(_ROUNDS):
        lesson = occurs * _teaching(fit, sample)
        prior = _learn_prior(fit, prior, np.maximum(lesson, _LEAST_LESSON), before)
        starts = [fit.parameters]
        if round_ == _RESTART:
            starts += _starts_from(sample, prior)
        fit = _best_of([fit_tags(sample, start, prior, steps=12) for start in starts])
        if round_ >= _ABSENT_FROM:
            occurs, absent, alone = _occurrence(sample, fit, prior, absent, alone)
    return Family(fit, prior, occurs), absent


def _first_prior(mean: Floats) -> NormalPrior:
    covariance, centre, place = np.diag(_START**2), Parameter.CENTRE, Parameter.PLACE
    covariance[[centre, place, place], [place, centre, place]] += covariance[centre, centre]
    return NormalPrior(mean, covariance)


def _teaching(fit: Fit, sample: Sample) -> Floats:
    """How far each tag teaches the others, from 0 to 1, [C]."""
    share = explained(fit.parameters, sample)
    best = max(float(np.quantile(share, _BEST)), 1e-9)
    span = _TEACHES_FULLY - _TEACHES_FROM
    return np.clip((share / best - _TEACHES_FROM) / span, 0.0, 1.0)


def _taught(sample: Sample, prior: NormalPrior, absent: float) -> Family:
    """Mixtures under a known prior."""
    starts = [*_starts(sample), *_starts_from(sample, prior)]
    fit = _best_of([fit_tags(sample, start, prior, steps=12) for start in starts])
    fit = fit_tags(sample, fit.parameters, prior, steps=12)
    occurs, alone = np.ones(len(sample.values)), _alone(sample, fit)
    for _ in range(_TAUGHT_ROUNDS):
        occurs, absent, alone = _occurrence(sample, fit, prior, absent, alone)
    return Family(fit, prior, occurs)


def _alone(sample: Sample, fit: Fit) -> Floats:
    """First parameters of every tag's scores as a background alone, [C, 8]."""
    parameters = fit.parameters.copy()
    parameters[:, Parameter.LOGIT_SHARE] = _NOWHERE
    parameters[:, Parameter.CENTRE] = sample.quantile(0.5)
    return np.asarray(parameters, np.float64)


def _occurrence(
    sample: Sample, fit: Fit, prior: NormalPrior, absent: float, alone: Floats
) -> tuple[Floats, float, Floats]:
    """Probability that each tag occurs, [C], the share of tags that do not, the next `alone`.

    Args:
        absent: that share so far. alone: parameters of each tag as a background alone, [C, 8].
    """
    mean, covariance, share = prior.mean.copy(), prior.covariance.copy(), Parameter.LOGIT_SHARE
    mean[share] = _NOWHERE
    covariance[share, :] = covariance[:, share] = 0.0
    covariance[share, share] = _NOWHERE_SPREAD**2
    without = NormalPrior(mean, covariance)
    background = fit_tags(sample, alone, without, steps=12)
    evidence = _log_evidence(fit, prior) - _log_evidence(background, without)
    occurs = np.asarray(expit(evidence + logit(1 - absent)), np.float64)
    count = float((1 - occurs).sum()) + _ABSENT_PRIOR[0]
    return occurs, count / (len(occurs) + sum(_ABSENT_PRIOR)), background.parameters


def _log_evidence(fit: Fit, prior: NormalPrior) -> Floats:
    """Log evidence of each tag's fit by Laplace's method, without its constant, [C]."""
    width = np.linalg.slogdet(fit.covariance)[1] - np.linalg.slogdet(prior.covariance)[1]
    return np.asarray(fit.log_posterior + 0.5 * width, np.float64)


def _learn_prior(fit: Fit, prior: NormalPrior, weights: Floats, before: Floats) -> NormalPrior:
    """A Newton step on the mean, because expectation–maximisation crawls, and one on the spread."""
    share = Parameter.LOGIT_SHARE
    tags = weights.sum()
    doubt = np.tensordot(weights, fit.covariance, 1)
    precision = np.linalg.inv(prior.covariance)
    trust = np.diag(1 / _DOUBT**2)
    gradient = weights @ (fit.parameters - prior.mean) @ precision + trust @ (before - prior.mean)
    curvature = tags * precision - precision @ doubt @ precision + trust
    step = np.linalg.solve(curvature, gradient)
    mean = prior.mean + np.clip(step, -_MAX_MEAN_STEP, _MAX_MEAN_STEP)
    away = fit.parameters - mean
    scatter = (weights[:, None] * away).T @ away + doubt
    own = _STRENGTH * np.diag(_SPREAD**2)
    mean[share] = min(mean[share], before[share])
    return NormalPrior(mean, (scatter + own) / (tags + _STRENGTH))


def _best_of(fits: list[Fit]) -> Fit:
    best = np.argmax([fit.log_posterior for fit in fits], axis=0)
    rows = best, np.arange(len(best))
    parts = ("parameters", "covariance", "log_posterior")
    return Fit(*(np.stack([getattr(fit, part) for fit in fits])[rows] for part in parts))


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


def _starts_from(sample: Sample, prior: NormalPrior) -> list[Floats]:
    """Where the prior puts a tag that is seen seldom, and one that is seen mostly."""
    seldom = np.tile(prior.mean, (len(sample.values), 1))
    mostly = seldom.copy()
    centre, place = Parameter.CENTRE, Parameter.PLACE
    follows = prior.covariance[place, centre] / prior.covariance[centre, centre]
    seldom[:, Parameter.LOGIT_SHARE], mostly[:, Parameter.LOGIT_SHARE] = -3.0, 1.0
    seldom[:, centre] = sample.quantile(0.5)
    seldom[:, place] += follows * (seldom[:, centre] - prior.mean[centre])
    mostly[:, place] = sample.quantile(0.6)
    mostly[:, centre] = mostly[:, place] - max(prior.mean[place] - prior.mean[centre], 1.0)
    return [seldom, mostly]

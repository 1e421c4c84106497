"""Tags lend each other their shape: an empirical-Bayes prior over the mixtures of all tags.

Where tags are alike the learned prior is narrow and a rare tag is cut where the others are; where
they differ it is wide and each tag speaks for itself. Beside each mixture stands a background
alone: how much likelier the mixture is tells whether the tag occurs at all, and a tag that seems
not to occur teaches the others nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from taidpt.calibration.statistics.mixture import Fit, NormalPrior, Parameter, fit_tags
from taidpt.calibration.statistics.sample import Sample

__all__ = ["Family", "Hint", "compress", "fit_family"]

Floats = npt.NDArray[np.float64]

_ENDS = 64
_BLOCKS = 128
_ROUNDS = 14
_TEACHERS = 600  # tags that the prior is learned from, at most
_TAUGHT_ROUNDS = 3  # of fits of a background alone, where the prior is known
_RESTARTS = (1, 5)  # rounds that try other beginnings under what was learned
_HINT_WEIGHT = 0.5  # texts differ from tag to tag more than pictures do
_MAX_MEAN_STEP = 0.5
# centre, log left, log right, log lift, log spread, logit share, log tail, log (right tail / left
# tail); spreads are of one tag
_MEAN = np.array([0.0, 0.0, 0.05, np.log(3.5), 0.0, -2.7, np.log(15.0), 0.0])
_SPREAD = np.array([0.2, 0.15, 0.15, 0.2, 0.15, 1.0, 0.3, 0.05])
_DOUBT = np.array([4.0, 0.6, 0.5, 0.3, 0.1, 1.0, 0.6, 0.01])  # how sure we are of _MEAN itself
_START = np.array([4.0, 0.6, 0.5, 0.4, 0.2, 1.6, 0.6, 0.05])  # how wide the first prior is
_OWN_TAIL = (0.3, 0.6, 0.6)  # their last entries, where the right tail may differ from the left
_STRENGTH = 6.0  # how many tags _SPREAD counts for
_ABSENT_FROM = 2  # the round from which on tags may turn out not to occur
_ABSENT_AT_FIRST = 0.5  # share of tags that do not occur, before it is learned
_ABSENT_PRIOR = (1.0, 9.0)  # tags that do not occur and that do, before any is looked at
_LEAST_LESSON = 0.02  # what a tag teaches that seems not to occur
_NOWHERE, _NOWHERE_SPREAD = -12.0, 0.01  # logit of the share of a tag that does not occur


@dataclass(frozen=True)
class Hint:
    """How far texts lift each tag above its background.

    Only the differences between tags count: the level itself, which is where texts and pictures
    part, is learned from the pictures.

    Attributes:
        log_lift: [C], NaN where no text names the tag.
    """

    log_lift: Floats

    def of(self, chosen: npt.NDArray[np.bool_]) -> Hint:
        """The same for some of the tags."""
        return Hint(self.log_lift[chosen])

    def offsets(self) -> Floats:
        """What to add to the prior mean of each tag's log lift, [C]."""
        known = np.isfinite(self.log_lift)
        if not known.any():
            return np.zeros(len(known))
        middle = np.median(self.log_lift[known])
        offsets = np.where(known, self.log_lift - middle, 0.0)
        result: Floats = _HINT_WEIGHT * np.clip(offsets, -1, 1)
        return result


@dataclass(frozen=True)
class Family:
    """All tags' mixtures, the prior that they share, and how likely each tag occurs at all, [C]."""

    fit: Fit
    prior: NormalPrior
    occurs: Floats


def compress(scores: Floats) -> Sample:
    """Scores [N, C] as few weighted values a tag: both ends one by one, the middle in blocks."""
    ordered = np.sort(scores, axis=0).T
    frames = ordered.shape[1]
    if frames <= 2 * _ENDS + _BLOCKS:
        return Sample(ordered, np.ones_like(ordered))
    middle = np.linspace(_ENDS, frames - _ENDS, _BLOCKS + 1).astype(int)
    edges = np.concatenate([np.arange(_ENDS), middle, np.arange(frames - _ENDS + 1, frames + 1)])
    counts = np.diff(edges)
    values = np.add.reduceat(ordered, edges[:-1], axis=1) / counts
    return Sample(values, np.broadcast_to(counts, values.shape).astype(float))


@dataclass(frozen=True)
class _Beliefs:
    """What is believed before any score is seen: spreads of the eight parameters, [8]."""

    spread: Floats
    doubt: Floats
    start: Floats

    @classmethod
    def about(cls, own_tail: bool) -> _Beliefs:
        spread, doubt, start = _SPREAD.copy(), _DOUBT.copy(), _START.copy()
        if own_tail:
            spread[-1], doubt[-1], start[-1] = _OWN_TAIL
        return cls(spread, doubt, start)


def fit_family(sample: Sample, hint: Hint | None = None, own_tail: bool = False) -> Family:
    """Fit every tag's mixture and the prior; of very many tags, the prior is learned from some.

    Args:
        sample: scores in units of a tag's spread, about zero.
        hint: how tags differ, where texts told it.
        own_tail: a background's right tail may be longer or shorter than its left one.
    """
    beliefs = _Beliefs.about(own_tail)
    offset = np.zeros((len(sample.values), Parameter.COUNT))
    if hint is not None:
        offset[:, Parameter.LOG_LIFT] = hint.offsets()
    some = slice(None, None, -(-len(offset) // _TEACHERS))
    teachers = Sample(sample.values[some], sample.counts[some])
    family, absent = _learn_family(teachers, offset[some], beliefs)
    if len(teachers.values) == len(offset):
        return family
    moved = family.prior.mean[0] - offset[0]
    return _taught(sample, NormalPrior(moved + offset, family.prior.covariance), absent.share)


def _learn_family(sample: Sample, offset: Floats, beliefs: _Beliefs) -> tuple[Family, _Absent]:
    """Mixtures and prior in turns."""
    prior = NormalPrior(_MEAN + offset, np.diag(beliefs.start**2))
    fit = _best_of([fit_tags(sample, start, prior) for start in _starts(sample)])
    occurs, absent = np.ones(len(offset)), _Absent.before(sample, fit)
    for round_ in range(_ROUNDS):
        prior = _learn_prior(fit, prior, beliefs, offset, np.maximum(occurs, _LEAST_LESSON))
        starts = [fit.parameters]
        if round_ in _RESTARTS:
            starts += _starts_from(sample, prior)
        fit = _best_of([fit_tags(sample, start, prior, steps=12) for start in starts])
        if round_ >= _ABSENT_FROM:
            occurs, absent = absent.against(sample, fit, prior)
    return Family(fit, prior, occurs), absent


def _taught(sample: Sample, prior: NormalPrior, absent_share: float) -> Family:
    """Mixtures under a prior that is known."""
    starts = [*_starts(sample), *_starts_from(sample, prior)]
    fit = _best_of([fit_tags(sample, start, prior, steps=12) for start in starts])
    fit = fit_tags(sample, fit.parameters, prior, steps=12)
    occurs, absent = np.ones(len(sample.values)), _Absent.before(sample, fit, absent_share)
    for _ in range(_TAUGHT_ROUNDS):
        occurs, absent = absent.against(sample, fit, prior)
    return Family(fit, prior, occurs)


@dataclass(frozen=True)
class _Absent:
    """Every tag's scores as a background alone.

    Attributes:
        parameters: of the background, [C, 8].
        share: of the tags, thought not to occur.
    """

    parameters: Floats
    share: float

    @classmethod
    def before(cls, sample: Sample, fit: Fit, share: float = _ABSENT_AT_FIRST) -> _Absent:
        """Where to begin."""
        parameters = fit.parameters.copy()
        parameters[:, Parameter.LOGIT_SHARE] = _NOWHERE
        parameters[:, Parameter.CENTRE] = _quantile(sample, 0.5)
        return cls(parameters, share)

    def against(self, sample: Sample, fit: Fit, prior: NormalPrior) -> tuple[Floats, _Absent]:
        """How likely each tag occurs, [C], by the mixtures' fit; and what is thought next."""
        alone = _without_tag(prior)
        background = fit_tags(sample, self.parameters, alone, steps=12)
        evidence = _log_evidence(fit, prior) - _log_evidence(background, alone)
        occurs = np.asarray(expit(evidence + logit(1 - self.share)), np.float64)
        without = float((1 - occurs).sum()) + _ABSENT_PRIOR[0]
        share = without / (len(occurs) + sum(_ABSENT_PRIOR))
        return occurs, _Absent(background.parameters, share)


def _without_tag(prior: NormalPrior) -> NormalPrior:
    """The same prior where a tag does not occur."""
    mean, covariance = prior.mean.copy(), prior.covariance.copy()
    mean[:, Parameter.LOGIT_SHARE] = _NOWHERE
    covariance[Parameter.LOGIT_SHARE, :] = covariance[:, Parameter.LOGIT_SHARE] = 0.0
    covariance[Parameter.LOGIT_SHARE, Parameter.LOGIT_SHARE] = _NOWHERE_SPREAD**2
    return NormalPrior(mean, covariance)


def _log_evidence(fit: Fit, prior: NormalPrior) -> Floats:
    """Log evidence of each tag's fit by Laplace's method, without its constant, [C]."""
    width = np.linalg.slogdet(fit.covariance)[1] - np.linalg.slogdet(prior.covariance)[1]
    return np.asarray(fit.log_posterior + 0.5 * width, np.float64)


def _learn_prior(
    fit: Fit, prior: NormalPrior, beliefs: _Beliefs, offset: Floats, weights: Floats
) -> NormalPrior:
    """One step on the mean by Newton, as expectation–maximisation crawls; one on the spread."""
    tags = weights.sum()
    doubt = np.tensordot(weights, fit.covariance, 1)
    precision = np.linalg.inv(prior.covariance)
    trust = np.diag(1 / beliefs.doubt**2)
    mean = (prior.mean - offset)[0]
    gradient = weights @ (fit.parameters - prior.mean) @ precision + trust @ (_MEAN - mean)
    curvature = tags * precision - precision @ doubt @ precision + trust
    step = np.linalg.solve(curvature, gradient)
    moved = offset + mean + np.clip(step, -_MAX_MEAN_STEP, _MAX_MEAN_STEP)
    away = fit.parameters - moved
    scatter = (weights[:, None] * away).T @ away + doubt
    own = _STRENGTH * np.diag(beliefs.spread**2)
    return NormalPrior(moved, (scatter + own) / (tags + _STRENGTH))


def _best_of(fits: list[Fit]) -> Fit:
    best = fits[0]
    for other in fits[1:]:
        better = other.log_posterior > best.log_posterior
        best = Fit(
            np.where(better[:, None], other.parameters, best.parameters),
            np.where(better[:, None, None], other.covariance, best.covariance),
            np.where(better, other.log_posterior, best.log_posterior),
        )
    return best


def _starts(sample: Sample) -> list[Floats]:
    """A tag seen seldom, at times, and mostly."""
    found = []
    for low, high, share in ((0.5, 0.999, -4.0), (0.3, 0.9, -1.5), (0.1, 0.7, 1.0)):
        centre, above = _quantile(sample, low), _quantile(sample, high)
        theta = np.tile(_MEAN, (len(centre), 1))
        theta[:, Parameter.CENTRE] = centre
        theta[:, Parameter.LOG_LIFT] = np.log(np.maximum(above - centre, 1.0))
        theta[:, Parameter.LOGIT_SHARE] = share
        found.append(theta)
    return found


def _starts_from(sample: Sample, prior: NormalPrior) -> list[Floats]:
    """Where the prior would put a tag that is seen seldom, and one that is seen mostly."""
    seldom, mostly = prior.mean.copy(), prior.mean.copy()
    seldom[:, Parameter.LOGIT_SHARE], mostly[:, Parameter.LOGIT_SHARE] = -3.0, 1.0
    seldom[:, Parameter.CENTRE] = _quantile(sample, 0.5)
    lift = np.exp(mostly[:, Parameter.LOG_LIFT])
    mostly[:, Parameter.CENTRE] = _quantile(sample, 0.6) - lift
    return [seldom, mostly]


def _quantile(sample: Sample, level: float) -> Floats:
    below = np.cumsum(sample.counts, axis=1) / sample.counts.sum(1, keepdims=True)
    index = np.minimum((below < level).sum(1), sample.values.shape[1] - 1)
    result: Floats = np.take_along_axis(sample.values, index[:, None], 1)[:, 0]
    return result

"""Gaussian discriminant analysis of confident patches: one Gaussian a tag, one covariance for all.

Source: Wang et al., "[CLS] is Not Enough", ICML 2026 (PIAA), and the shrunk precision matrix of
Kubokawa and Srivastava 2008. Every array here is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ConfidentPatches", "Discriminant", "PatchChoice", "choose_patches", "fit", "refine"]

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

# Softmax over tags: cosines times 60, as in the paper. Patches are read in pieces of this many, so
# that a large bank needs megabytes of memory and not gigabytes.
_TEMPERATURE = 60.0
_PIECE = 4096
_ROUNDING = 1e-12  # of a mean of equal probabilities
# Squared distance of unit vectors below which they are equal in single precision.
_NO_SPREAD = 1e-12


@dataclass(frozen=True)
class PatchChoice:
    """Which patches are confident.

    Attributes:
        most: patches of a tag at most, those of the least entropy.
        least_probability: a patch's best tag has at least this probability among all tags.
    """

    most: int = 512
    least_probability: float = 0.0


@dataclass(frozen=True, eq=False)
class ConfidentPatches:
    """n patches of F in all.

    Attributes:
        index: their places among the F, [n], tag by tag, and the most certain of a tag first.
        tags: the tag of each, [n].
        weights: its probability, [n].
    """

    index: Whole
    tags: Whole
    weights: Floats


@dataclass(frozen=True, eq=False)
class Discriminant:
    """Gaussians of C tags.

    Attributes:
        means: [C, D].
        precision: the inverse of the shared covariance, [D, D], times a common factor.
    """

    means: Floats
    precision: Floats

    @property
    def weights(self) -> Floats:
        """Rows of the linear classifier, [C, D]."""
        return self.means @ self.precision

    @property
    def bias(self) -> Floats:
        """Constants of the linear classifier, where all tags are equally frequent; [C]."""
        return np.asarray(
            -np.log(len(self.means)) - 0.5 * np.einsum("cd,cd->c", self.weights, self.means)
        )


def choose_patches(
    features: npt.NDArray[Any], rows: npt.NDArray[Any], choice: PatchChoice
) -> ConfidentPatches:
    """The patches whose tag is most certain: each belongs to its most similar tag.

    Args:
        features: unit rows, [F, D], of any float type.
        rows: unit class rows, [C, D].
    """
    pieces = [
        _certainty(features[start : start + _PIECE].astype(np.float64) @ rows.T)
        for start in range(0, len(features), _PIECE)
    ]
    tags, weights, entropy = (np.concatenate(part) for part in zip(*pieces, strict=True))
    chosen = []
    for tag in range(len(rows)):
        own = np.flatnonzero((tags == tag) & (weights >= choice.least_probability))
        chosen.append(own[np.argsort(entropy[own], kind="stable")[: choice.most]])
    index = np.concatenate(chosen)
    return ConfidentPatches(index, tags[index], weights[index])


def fit(features: Floats, tags: Whole, weights: Floats, means: npt.NDArray[Any]) -> Discriminant:
    """Estimate the Gaussians.

    A tag's mean is that of its patches by weight. The precision matrix is shrunk towards a sphere,
    so that it exists for fewer patches than dimensions: D · ((n − 1) S + tr(S) I)⁻¹.

    Args:
        features: n patches, [n, D], at least two.
        tags: the tag of each, [n]. weights: > 0, [n].
        means: of tags without patches, [C, D].
    """
    means = means.astype(np.float64)
    if not len(features):  # no patch was sure enough in the second round
        return Discriminant(means, np.eye(means.shape[1]))
    for tag in np.unique(tags):
        own = tags == tag
        means[tag] = np.average(features[own], axis=0, weights=weights[own])
    rest = features - means[tags]
    rest -= rest.mean(axis=0)
    scatter = rest.T @ rest  # (n − 1) S
    n, dim = features.shape
    spread = np.trace(scatter) / max(n - 1, 1)
    if spread < _NO_SPREAD:  # a patch a tag, or equal ones: nothing is known of directions
        return Discriminant(means, np.eye(dim))
    shrunk = scatter + spread * np.eye(dim)
    return Discriminant(means, dim * np.linalg.pinv(shrunk, hermitian=True))


def refine(
    features: Floats, found: Discriminant, means: npt.NDArray[Any], temperature: float
) -> Discriminant:
    """The paper's second round: estimate again from the patches that the first is surest of.

    Patches go to the tag that the discriminant gives them. Of each tag those stay whose
    probability is at least a standard deviation above the tag's mean.

    Args:
        features: the confident patches, [n, D].
        means: of tags without patches, [C, D].
        temperature: factor on the discriminant's logits; the paper's depend on the data set.
    """
    logits = features @ found.weights.T + found.bias
    tags, weights, _ = _certainty(logits, temperature)
    good = np.zeros(len(features), bool)
    for tag in np.unique(tags):
        own = tags == tag
        if own.sum() > 1:  # one patch has no deviation: the tag then counts as one without patches
            least = weights[own].mean() + weights[own].std(ddof=1)
            good |= own & (weights >= least - _ROUNDING)
    return fit(features[good], tags[good], weights[good], means)


def _certainty(logits: Floats, temperature: float = _TEMPERATURE) -> tuple[Whole, Floats, Floats]:
    """Best tag, its probability, and the entropy of all; of each row of [F, C]."""
    best = logits.argmax(axis=1)
    powers = np.exp(temperature * (logits - logits.max(axis=1, keepdims=True)))
    shares = powers / powers.sum(axis=1, keepdims=True)
    entropy = -(shares * np.log(np.maximum(shares, 1e-10))).sum(axis=1)
    return best, shares[np.arange(len(best)), best], entropy

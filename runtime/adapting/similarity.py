"""Similarities and scores of stored features in NumPy, where no graph runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.scoring import Scoring

__all__ = ["Features", "bank_scores", "global_similarity", "pool_patches"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Features:
    """What a bundle's encoder gives for N frames, in order; unit rows of any float type.

    Attributes:
        whole: global features, [N, D], or [N, tiles, D].
        patches: [N, P, D].
    """

    whole: Array
    patches: Array

    def __len__(self) -> int:
        return len(self.whole)

    def part(self, chosen: npt.NDArray[np.bool_]) -> Features:
        """Some of the frames."""
        return Features(self.whole[chosen], self.patches[chosen])


def global_similarity(features: Array, rows: Array) -> Array:
    """Similarities of whole frames.

    Args:
        features: unit rows, [N, D]; or [N, tiles, D], of which each tag takes its best tile.
        rows: unit rows, [C, D].
    Returns:
        [N, C].
    """
    cosines = features @ rows.T
    return np.asarray(cosines if features.ndim == 2 else cosines.max(axis=1))


def pool_patches(cosines: Array, temperature: float) -> Array:
    """The local similarity: cosines weighted by their own softmax over patches.

    Args:
        cosines: [..., P, C]. temperature: sharpness of the weights, > 0.
    Returns:
        [..., C].
    """
    weights = np.exp(temperature * (cosines - cosines.max(axis=-2, keepdims=True)))
    return np.asarray((weights * cosines).sum(axis=-2) / weights.sum(axis=-2))


def bank_scores(features: Features, bank: ClassBank, scoring: Scoring) -> Array:
    """Scores as a bundle's graph computes them, [N, C]; patches may be none for a weight of 0."""
    rows, weight = bank.competing(), scoring.merge_weight
    merged = (1 - weight) * global_similarity(features.whole, rows["global_embeddings"])
    if weight:
        cosines = features.patches @ rows["local_embeddings"].T
        merged = merged + weight * pool_patches(cosines, scoring.temperature)
    scores = np.asarray(rows["scale"] * merged + rows["bias"])
    if scoring.transform == "center":
        scores = scores - scores.mean(axis=-1, keepdims=True)
    if scoring.transform == "log_softmax":
        scores -= scores.max(axis=-1, keepdims=True)
        scores = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return np.asarray(scores[:, : len(bank.names)])

"""What is done to a picture's scores over its tags; for NumPy arrays and torch tensors alike."""

from __future__ import annotations

import importlib
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bundle.scoring import SCORE_TRANSFORMS
from taidpt.runtime.errors import InputError

__all__ = ["SCORE_TRANSFORMS", "are_log_probabilities", "transform_scores"]

_SUMS_TO_ONE = 1e-3  # but for float16's rounding

Scores = TypeVar("Scores", bound=Any)


def transform_scores(scores: Scores, transform: str) -> Scores:
    """Normalise the scores of each picture over its tags.

    Args:
        scores: NumPy array or torch tensor, [B, C].
        transform: "none"; "center", which subtracts the mean over tags; or "log_softmax" over tags.
    Returns:
        The same kind of array, [B, C].
    Raises:
        InputError: an unknown transform.
    """
    # Both libraries offer these functions under the same names and keywords.
    library: Any = np if isinstance(scores, np.ndarray) else importlib.import_module("torch")
    if transform == "none":
        return scores
    if transform == "center":
        centred: Scores = scores - library.mean(scores, axis=-1, keepdims=True)
        return centred
    if transform == "log_softmax":
        shifted = scores - library.amax(scores, axis=-1, keepdims=True)  # keeps exp() in range
        total = library.sum(library.exp(shifted), axis=-1, keepdims=True)
        logs: Scores = shifted - library.log(total)
        return logs
    raise InputError(
        f"score transform {transform!r}: expected one of {', '.join(SCORE_TRANSFORMS)}"
    )


def are_log_probabilities(scores: npt.NDArray[Any]) -> bool:
    """Whether scores [N, C] are a log_softmax's: their exponentials sum to 1 in every frame."""
    may_be = scores.shape[1] > 1 and scores.max() <= 0
    return bool(may_be and np.allclose(np.exp(scores).sum(axis=1), 1.0, atol=_SUMS_TO_ONE))

"""Exports with `--top-k`, which return the K best scores of each frame: bounds of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bundle.manifest import TOP_OUTPUTS
from taidpt.runtime.errors import InputError

__all__ = ["expand_top", "floor_scores", "refuse_top"]


Scores = npt.NDArray[np.float32]


def expand_top(
    outputs: Mapping[str, npt.NDArray[Any]], tags: int
) -> tuple[Scores, npt.NDArray[np.bool_]]:
    """Scores of all tags, from the K best of each frame.

    Args:
        outputs: "top_scores" float32 [N, K], best first, and "top_indices" integers [N, K].
        tags: C, at least K.
    Returns:
        Scores float32 [N, C], in which each tag outside the K best has the K-th score, its upper
        bound; and which scores are exact, bool [N, C].
    """
    values, indices = (outputs[name] for name in TOP_OUTPUTS)
    scores = np.repeat(values[:, -1:], tags, axis=1)
    exact = np.zeros(scores.shape, bool)
    np.put_along_axis(scores, indices, values, axis=1)
    np.put_along_axis(exact, indices, True, axis=1)
    return scores, exact


def floor_scores(scores: npt.NDArray[Any], top_k: int | None) -> npt.NDArray[Any]:
    """Raise scores [N, C] to the K-th best of their frame, as `expand_top` returns them.

    With `top_k` None the scores are returned unchanged.
    """
    if top_k is None:
        return scores
    lowest = np.partition(scores, -top_k, axis=1)[:, -top_k]
    return np.asarray(np.maximum(scores, lowest[:, None]))


def refuse_top(top_k: int | None, bundle: object, what: str) -> None:
    """Refuse a task that needs all scores for an export that returns only the best.

    Args:
        top_k: K of the export; None: it returns all scores.
        bundle: the path of the bundle.
        what: the task, such as "calibration".
    Raises:
        InputError: `top_k` is not None.
    """
    if top_k is not None:
        raise InputError(
            f"{bundle}: was exported with --top-k {top_k}, and {what} needs every tag's score of "
            "every frame; use an export without --top-k"
        )

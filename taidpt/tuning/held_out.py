"""Which texts are held out from tuning, for thresholds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["split_held_out"]

_LEAST_A_TAG = 3


def split_held_out(
    labels: Sequence[Sequence[int]], tags: int, fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split texts into those to train on and those held out, by their numbers in ascending order.

    A random fraction is held out; a tag that gets fewer than three is topped up, as long as most
    of its texts stay in training.

    Args:
        labels: tag numbers of each text.
    Returns:
        training rows and held-out rows.
    """
    count = len(labels)
    order = np.random.default_rng([seed, 1]).permutation(count)
    held = np.zeros(count, bool)
    held[order[: round(count * fraction)]] = True
    if fraction > 0:
        owners: list[list[int]] = [[] for _ in range(tags)]
        for row in order.tolist():
            for tag in labels[row]:
                owners[tag].append(row)
        for rows in owners:
            missing = min(_LEAST_A_TAG, len(rows) // 4) - int(held[rows].sum())
            spare = [row for row in rows if not held[row]]
            held[spare[: max(missing, 0)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)

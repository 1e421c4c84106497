"""Scores of many tags, as everything that learns from them takes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Sample"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Scores of each tag in rising order, [C, B], and how many frames each stands for, [C, B]."""

    values: Floats
    counts: Floats

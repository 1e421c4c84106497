"""What tuning asks of pictures, masks for partial labels, and few-shot selection."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from taidpt.runtime.errors import InputError
from taidpt.tuning.loop import FeatureSource

__all__ = ["TunablePictures", "few_shots", "mask_labels"]


class TunablePictures(FeatureSource, Protocol):
    """Features of pictures, with a hash that identifies the set."""

    def sha256(self) -> str:
        """Hash of everything that determines the features."""


def mask_labels(labels: Tensor, known: float, seed: int) -> Tensor:
    """Hide labels at random, independently per (picture, tag), as partial-label studies do.

    Args:
        labels: [N, C] of 1 and −1.
        known: share of known labels, above 0 and at most 1.
        seed: seed of the random choice.
    Returns:
        The labels with 0 where hidden, [N, C].
    """
    if not 0 < known <= 1:
        raise InputError(f"the share of known labels should be above 0 and at most 1, got {known}")
    generator = torch.Generator().manual_seed(seed)
    return torch.where(torch.rand(labels.shape, generator=generator) < known, labels, 0)


def few_shots(targets: npt.NDArray[Any], shots: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw some pictures of each tag at random; a picture keeps all its labels.

    Args:
        targets: [N, C]; a picture has a tag where the value is above 0.
        shots: pictures per tag; all of them where there are fewer.
        seed: seed of the random choice.
    Returns:
        The pictures' indices in ascending order, each once.
    """
    generator = np.random.default_rng([seed, 4])
    chosen = []
    for column in targets.T:
        showing = np.flatnonzero(column > 0)
        chosen.append(generator.permutation(showing)[:shots])
    return np.unique(np.concatenate(chosen))

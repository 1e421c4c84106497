"""Picture features for tuning, masks for partial labels, and few-shot selection."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from taidpt.features.caption_features import FeatureBatch
from taidpt.runtime.errors import InputError
from taidpt.tuning.loop import FeatureSource

__all__ = ["PictureSource", "TunablePictures", "few_shots", "mask_labels"]


class TunablePictures(FeatureSource, Protocol):
    """Features of pictures, with a hash that identifies the set."""

    def sha256(self) -> str:
        """Hash of everything that determines the features."""


@dataclass(frozen=True, eq=False)
class PictureSource:
    """Features of N pictures, computed once.

    Attributes:
        global_features: unit rows, [N, D].
        patch_features: unit rows, [N, P, D].
    """

    global_features: Tensor
    patch_features: Tensor

    def __len__(self) -> int:
        return len(self.global_features)

    def batch(self, rows: npt.NDArray[np.int64]) -> FeatureBatch:
        """Features of these numbers, in fp32."""
        chosen = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        pooled = self.global_features[chosen].float()
        return FeatureBatch(pooled, self.patch_features[chosen].float(), None)

    def stream(
        self, epoch: int, batches: Sequence[npt.NDArray[np.int64]]
    ) -> Iterator[FeatureBatch]:
        """Features of these numbers, batch by batch; equal in every epoch."""
        return map(self.batch, batches)

    def sha256(self) -> str:
        """Hash of the global features, which identifies the set of pictures."""
        return hashlib.sha256(self.global_features.float().cpu().numpy().tobytes()).hexdigest()


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

"""PIAA as published: a patch classifier learnt from unlabelled pictures, with its own read-out.

Unlike `taidpt adapt`, whose rows score each class by itself, classes compete within each patch and
the best patch counts, so a class's score depends on the other classes. Source: Wang et al., "[CLS]
is Not Enough", ICML 2026, and the numbers of its authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from taidpt.features.pictures import PictureFeatures
from taidpt.runtime.adapting.discriminant import (
    Discriminant,
    PatchChoice,
    choose_patches,
    fit,
    refine,
)
from taidpt.runtime.errors import InputError

__all__ = ["PiaaSettings", "learn_patches", "piaa_scores"]

_PATCH_TEMPERATURE = 1 / 500  # on the discriminant's logits, which are in the thousands
_PATCH_SHARE = 0.9


@dataclass(frozen=True)
class PiaaSettings:
    """Numbers that the authors chose for each data set; the defaults are VOC2007's.

    Attributes:
        refine: factor on the discriminant's logits in the second round.
        whole, patch: factors before the softmax over classes, of the global cosines and of the best
            patches' shares.
    """

    refine: float = 100.0
    whole: float = 80.0
    patch: float = 200.0


def learn_patches(scene: PictureFeatures, rows: Tensor, settings: PiaaSettings) -> Discriminant:
    """The patch classifier, two rounds.

    Args:
        scene: unlabelled pictures.
        rows: unit class rows, [C, D].
    """
    patches = scene.patch_features.numpy().reshape(-1, rows.shape[1])
    means = rows.double().numpy()
    chosen = choose_patches(patches, means, PatchChoice())
    kept = patches[chosen.index].astype(np.float64)
    found = fit(kept, chosen.tags, chosen.weights, means)
    return refine(kept, found, means, settings.refine)


def piaa_scores(
    features: PictureFeatures, rows: Tensor, learnt: Discriminant, settings: PiaaSettings
) -> Tensor:
    """Scores of B pictures, [B, C], in 0 … 1.

    Args:
        features: with the model's own picture features.
        rows: unit class rows, [C, D].
        learnt: as `learn_patches` returns it.
    Raises:
        InputError: there are no picture features of the model's own.
    """
    if features.zero_shot is None:
        raise InputError("piaa pools with positions: it takes the model's own size alone")
    weights, bias = (
        torch.from_numpy(array * _PATCH_TEMPERATURE).float()
        for array in (learnt.weights, learnt.bias)
    )
    shares = (features.patch_features @ weights.T + bias).softmax(dim=-1).amax(dim=1)
    whole = (settings.whole * (features.zero_shot @ rows.T)).softmax(dim=-1)
    return (1 - _PATCH_SHARE) * whole + _PATCH_SHARE * (settings.patch * shares).softmax(dim=-1)

"""Zero-shot CLIP with templates: the baseline of tuned prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from taidpt.clip.model import ClipModel
from taidpt.encoders.local_branch import image_encoder
from taidpt.features.prompt_encoder import plain_class_embeddings
from taidpt.runtime.errors import InputError
from taidpt.scores import global_scores, local_scores, merged_scores

__all__ = ["PictureFeatures", "encode_pictures", "normalised", "zero_shot_scores"]

_BATCH = 64  # pictures encoded at once, which bounds memory; the result does not depend on it


@dataclass(frozen=True)
class PictureFeatures:
    """Features of N pictures, unit rows.

    Attributes:
        zero_shot: the model's own picture feature, positional embedding included, [N, D]; None at
            another size than the model's own, which its positions do not fit.
        global_features: the feature that prompts are scored against, [N, D].
        patch_features: [N, P, D].
    """

    zero_shot: Tensor | None
    global_features: Tensor
    patch_features: Tensor


@torch.inference_mode()
def encode_pictures(
    clip: ClipModel, crops: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]
) -> PictureFeatures:
    """Encode pictures.

    Args:
        clip: a frozen CLIP.
        crops: N pictures, uint8 RGB [S, S, 3], S the model's size.
    """
    encoder = image_encoder(clip)
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(crops), _BATCH):
        pixels = torch.from_numpy(np.stack(list(crops[start : start + _BATCH])))
        images = normalised(clip, pixels.permute(0, 3, 1, 2))
        found = encoder(images)
        if images.shape[-1] == _own_size(clip):
            found = (*found, encoder.zero_shot_features(images))
        parts.append(tuple(feature.cpu() for feature in found))
    whole, patches, *own = (
        F.normalize(torch.cat(part), dim=-1) for part in zip(*parts, strict=True)
    )
    return PictureFeatures(own[0] if own else None, whole, patches)


def normalised(clip: ClipModel, pixels: Tensor) -> Tensor:
    """Pixels uint8 [B, 3, S, S], normalised for the image tower, on its device."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (clip.mean, clip.std))
    return ((pixels.float() / 255 - mean) / std).to(clip.device)


def _own_size(clip: ClipModel) -> int:
    visual: Any = clip.model.visual
    size = visual.image_size
    return int(size[0] if isinstance(size, (tuple, list)) else size)


@torch.inference_mode()
def zero_shot_scores(
    clip: ClipModel,
    features: PictureFeatures,
    names: Sequence[str],
    templates: Sequence[str],
    temperature: float = 40.0,
) -> dict[str, npt.NDArray[Any]]:
    """Scores with templates instead of prompts.

    Args:
        clip: the model of the features.
        features: of N pictures.
        names: C tags.
        templates: one or more, each with `{}` for the name.
        temperature: sharpness of the local weights.
    Returns:
        "zero_shot" (plain zero-shot CLIP), "global", "local" and "merged" (CLIP-DPT), each [N, C].
    """
    if features.zero_shot is None:
        raise InputError("zero-shot CLIP needs pictures of the model's own size")
    bank = plain_class_embeddings(clip, names, templates)
    whole = global_scores(features.global_features, bank)
    parts = local_scores(features.patch_features, bank, temperature)
    return {
        "zero_shot": global_scores(features.zero_shot, bank).numpy(),
        "global": whole.numpy(),
        "local": parts.numpy(),
        "merged": merged_scores(whole, parts).numpy(),
    }

"""Features of pictures: the model's own, and those that prompts are scored against."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from taidpt.clip.model import ClipModel
from taidpt.encoders.local_branch import image_encoder
from taidpt.features.caption_features import FeatureBatch

__all__ = ["PictureFeatures", "encode_pictures", "normalised"]

_BATCH = 64  # pictures encoded at once, which bounds memory; the result does not depend on it


@dataclass(frozen=True, eq=False)
class PictureFeatures:
    """Features of N pictures, unit rows; those on disk are read as they are used.

    Attributes:
        zero_shot: the model's own picture feature, positional embedding included, [N, D]; None at
            another size than the model's own, which its positions do not fit.
        global_features: the feature that prompts are scored against, [N, D].
        patch_features: [N, P, D].
    """

    zero_shot: Tensor | None
    global_features: Tensor
    patch_features: Tensor

    def __len__(self) -> int:
        return len(self.global_features)

    def batches(self, size: int = 256) -> Iterator[PictureFeatures]:
        """Features in fp32, `size` pictures at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            zero_shot = None if self.zero_shot is None else self.zero_shot[part].float()
            whole, patches = self.global_features[part], self.patch_features[part]
            yield PictureFeatures(zero_shot, whole.float(), patches.float())

    def stream(
        self, epoch: int, batches: Sequence[npt.NDArray[np.int64]]
    ) -> Iterator[FeatureBatch]:
        """Features of these numbers in fp32, batch by batch; equal in every epoch."""
        for rows in map(torch.from_numpy, batches):
            whole, patches = self.global_features[rows], self.patch_features[rows]
            yield FeatureBatch(whole.float(), patches.float(), None)

    def sha256(self) -> str:
        """Hash of the global features, which identifies the set of pictures."""
        return hashlib.sha256(self.global_features.float().cpu().numpy().tobytes()).hexdigest()


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

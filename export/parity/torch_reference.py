"""The reference of the parity gate: open_clip's own transform, and PyTorch in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from taidpt.export.parity.graph_outputs import BATCH, Arrays, Pixels
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.manifest import InputSpec, Scoring
from taidpt.scores import bank_outputs

__all__ = ["TorchReference"]

_BICUBIC = 3  # PIL.Image.Resampling.BICUBIC


@dataclass(frozen=True)
class TorchReference:
    """open_clip's transform and PyTorch in fp32, which a device must reproduce, each by itself.

    A right device differs from the transform by a grey level in a few pixels, and a sharp encoder
    turns that into large differences of features. So PyTorch gets the pixels that the device's
    encoder gets, and the pixels are compared on their own.

    Attributes:
        encoder: normalised pictures → raw global and patch features.
        spec: size, colours and resize, from the manifest.
        bank, scoring: the head.
    """

    encoder: nn.Module
    spec: InputSpec
    bank: ClassBank
    scoring: Scoring

    def pixels(self, pictures: Sequence[Pixels]) -> Pixels:
        """open_clip's crops, uint8 [N, h, w, 3], of pictures uint8 RGB [H, W, 3] of any size."""
        transform = self._transform()
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.spec.mean, self.spec.std))
        images = (_rows_first(_pil(picture), self.spec) for picture in pictures)
        crops = [(transform(image) * std + mean) * 255 for image in images]
        return torch.stack(crops).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()

    def outputs(self, pixels: Pixels) -> Arrays:
        """All outputs of the graph for crops uint8 [N, h, w, 3], as `encoder_pixels` gives them."""
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.spec.mean, self.spec.std))
        images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
        parts = [self._run(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}

    def _transform(self) -> Any:
        import open_clip

        return open_clip.image_transform(
            (self.spec.height, self.spec.width),
            is_train=False,
            mean=self.spec.mean,
            std=self.spec.std,
            interpolation=self.spec.interpolation,
            resize_mode="squash" if self.spec.view.sees_all else "shortest",
        )

    @torch.no_grad()
    def _run(self, images: Tensor) -> dict[str, Tensor]:
        raw_global, raw_patches = self.encoder(images)
        global_features = F.normalize(raw_global.float(), dim=-1)
        patch_features = F.normalize(raw_patches.float(), dim=-1)
        return {
            **bank_outputs(self.bank, self.scoring, global_features, patch_features),
            "global_features": global_features,
            "patch_features": patch_features,
        }


def _pil(pixels: Pixels) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def _rows_first(image: Any, spec: InputSpec) -> Any:
    """A picture resized before the transform sees it, the width first.

    From version 13 on, Pillow resizes the height first where that is less work, as in pictures more
    than twice as high as wide, and rounds between the passes: hard edges differ by up to 21 levels
    from all versions before, with which CLIP was trained. Each pass alone gives the same in every
    version.
    """
    if image.height <= 2 * image.width and not spec.view.sees_all:
        return image
    plan = spec.plan((image.height, image.width))
    narrow = image.resize((plan.resized_width, image.height), _BICUBIC)
    return narrow.resize((plan.resized_width, plan.resized_height), _BICUBIC)

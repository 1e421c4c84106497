"""What every image encoder gives: a global feature, and a feature a patch in the joint space.

One rule defines the local branch of all towers: whatever mixes positions last is left out, and
everything behind it is kept. The last attention (a block's, or a pooling's) gives each patch its
own value instead of a mixture; an average over cells gives each cell.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from taidpt.runtime.errors import InputError

__all__ = ["ImageEncoder", "UnsupportedTowerError"]


class UnsupportedTowerError(InputError):
    """An image tower that has no local branch here; the message names the part that is unknown."""


class ImageEncoder(nn.Module, ABC):
    """Normalised pictures → global and patch features, neither of unit length.

    Subclasses hold `visual`, open_clip's image tower.

    Attributes:
        any_size: whether pictures may have another size than the model's own.
    """

    any_size = False

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a batch.

        Args:
            images: normalised RGB, [B, 3, H, W].
        Returns:
            global features [B, D] and patch features [B, P, D], P = rows × columns row by row.
        """

    @abstractmethod
    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches for an input of this many pixels."""

    def zero_shot_features(self, images: Tensor) -> Tensor:
        """CLIP's own image features [B, D], positional embedding included: the baseline."""
        found = self.visual(images)
        return torch.as_tensor(found[0] if isinstance(found, tuple) else found)

    def check_size(self, images: Tensor) -> None:
        """Raise InputError for pictures of another size than a tower with fixed positions takes."""
        expected = tuple(self.visual.image_size)
        height, width = images.shape[-2:]
        if (height, width) != expected:
            raise InputError(
                f"this ViT takes {expected[0]} × {expected[1]} pixels, got {height} × {width}"
            )

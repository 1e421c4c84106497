"""Base class of image encoders: a global feature and one feature per patch, in the joint space.

One rule defines the local branch of every tower: skip the last operation that mixes positions, and
keep everything after it. The last attention (of a block or of the pooling) passes on each patch's
own value instead of a mixture; an average over cells passes on each cell. That is the branch
"value". With "self" the last attention compares patches with themselves (self_attention.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from taidpt.runtime.errors import InputError

__all__ = ["ImageEncoder", "UnsupportedTowerError"]


class UnsupportedTowerError(InputError):
    """An image tower without a local branch here; the message names the unsupported part."""


class ImageEncoder(nn.Module, ABC):
    """Normalised pictures → global and patch features, not normalised.

    Subclasses hold `visual`, open_clip's image tower.

    Attributes:
        any_size: whether pictures of other sizes than the model's own are accepted.
        local_branch: "value" or "self"; `tower_encoder` sets it.
    """

    any_size = False
    local_branch = "value"

    @property
    def attends_to_itself(self) -> bool:
        """Whether the tower has the branch "self"."""
        return False

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

    def at(self, height: int, width: int) -> ImageEncoder:
        """The encoder for inputs of another size, in pixels.

        Raises:
            InputError: the tower's positions fit its own size alone.
        """
        if self.any_size or (height, width) == tuple(self.visual.image_size):
            return self
        raise InputError(
            f"this {type(self.visual).__name__} takes no input of {width}x{height}; "
            "use --view whole or tiles:2"
        )

    def like(self, encoder: ImageEncoder) -> ImageEncoder:
        """The other encoder in eval mode, with this one's local branch."""
        encoder.local_branch = self.local_branch
        return encoder.eval()

    def zero_shot_features(self, images: Tensor) -> Tensor:
        """CLIP's own image features [B, D], positional embedding included: the baseline."""
        features = self.visual(images)
        return torch.as_tensor(features[0] if isinstance(features, tuple) else features)

    def extra_repr(self) -> str:
        """The branch, so that the modules of two branches print differently."""
        return f"local_branch={self.local_branch}"

    def check_size(self, images: Tensor) -> None:
        """Raise InputError unless the pictures have the size of the tower's positions."""
        expected = tuple(self.visual.image_size)
        height, width = images.shape[-2:]
        if (height, width) != expected:
            raise InputError(
                f"this ViT takes {expected[0]} × {expected[1]} pixels, got {height} × {width}"
            )

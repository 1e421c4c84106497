"""Size and crop of the pictures that a model encodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.clip.model import ClipModel
from taidpt.encoders.local_branch import at_size
from taidpt.runtime.bundle.manifest import InputSpec
from taidpt.runtime.bundle.view import View
from taidpt.runtime.errors import InputError
from taidpt.runtime.preprocess.preprocessor import Preprocessor

__all__ = ["RESIZES", "PictureInput"]

RESIZES = ("crop", "whole")
Crop = Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class PictureInput:
    """How pictures become a model's square input and patch features.

    Attributes:
        size: side in pixels, None for the model's own (TaI-DPT uses 224, DualCoOp 448).
        resize: the view of a bundle: "crop" resizes the short side and crops the centre; "whole"
            resizes both sides, as DualCoOp's authors test.
        local_branch: "value" or "self", see `image_encoder`.
    """

    size: int | None = None
    resize: str = "crop"
    local_branch: str = "value"

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise InputError(f"picture size should be above 0, got {self.size}")
        if self.resize not in RESIZES:
            raise InputError(f"resize {self.resize!r}: expected one of {', '.join(RESIZES)}")

    def model(self, clip: ClipModel) -> ClipModel:
        """The model at this size, with this local branch.

        Raises:
            InputError: the model accepts only its own size.
        """
        clip = replace(clip, local_branch=self.local_branch)
        return clip if self.size is None else at_size(clip, self.size)

    def preprocess(self, clip: ClipModel) -> Crop:
        """A function from a frame to uint8 RGB [S, S, 3]; S is the size of a model from `model`."""
        side = clip.image_size
        return Preprocessor(InputSpec(side, side, clip.mean, clip.std, view=View(self.resize)))

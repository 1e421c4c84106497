"""What of a picture a model is shown: at which size, and whether a crop or the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.clip.model import ClipModel
from taidpt.encoders.local_branch import at_size
from taidpt.runtime.bundle.manifest import InputSpec
from taidpt.runtime.errors import InputError
from taidpt.runtime.preprocess.preprocessor import Preprocessor

__all__ = ["RESIZES", "PictureInput"]

RESIZES = ("crop", "whole")
Crop = Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class PictureInput:
    """How a picture becomes a model's square input.

    Attributes:
        size: side in pixels, None for the model's own (TaI-DPT's 224; DualCoOp's is 448).
        resize: "crop" (short side to the size, then the centre, as a device does it) or "whole"
            (both sides to the size, as DualCoOp's authors test).
    """

    size: int | None = None
    resize: str = "crop"

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise InputError(f"picture size should be above 0, got {self.size}")
        if self.resize not in RESIZES:
            raise InputError(f"resize {self.resize!r}: expected one of {', '.join(RESIZES)}")

    def model(self, clip: ClipModel) -> ClipModel:
        """The model at this size.

        Raises:
            InputError: it takes no other size than its own.
        """
        return clip if self.size is None else at_size(clip, self.size)

    def preprocess(self, clip: ClipModel) -> Crop:
        """Frame → uint8 RGB [S, S, 3], S the size of a model that `model` gave."""
        side = clip.image_size
        crop = Preprocessor(InputSpec(side, side, clip.mean, clip.std))
        return crop if self.resize == "crop" else lambda frame: crop(_squeezed(frame, side))


def _squeezed(frame: npt.NDArray[Any], side: int) -> npt.NDArray[np.uint8]:
    """Both sides to `side`, bicubic and antialiased, whatever the aspect."""
    from PIL import Image

    bicubic = Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(frame).convert("RGB").resize((side, side), bicubic))

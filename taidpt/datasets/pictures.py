"""Streams pictures of a data set through a torch DataLoader, cropped as on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from taidpt.datasets.base import LabelledImages
from taidpt.runtime.sources.picture_files import read_image

__all__ = ["picture_loader"]

Crop = Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]]
Item = tuple[Tensor, Tensor]


@dataclass
class _CroppedPictures(Dataset[Item]):
    """Pictures and targets by position."""

    images: LabelledImages
    crop: Crop

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Item:
        # A copy, because a picture that already has the right size may be read-only.
        frame = np.array(self.crop(read_image(self.images.paths[position])))
        return torch.from_numpy(frame), torch.from_numpy(self.images.targets[position])


def picture_loader(
    images: LabelledImages, crop: Crop, batch_size: int = 64, workers: int = 0
) -> DataLoader[Item]:
    """Stream batches in file order: uint8 [B, H, W, 3] and int8 targets [B, C].

    Args:
        images: the pictures.
        crop: frame → uint8 RGB [H, W, 3], such as `taidpt.runtime.Preprocessor`.
        batch_size: B, fewer in the last batch.
        workers: processes that read; 0 for this one.
    """
    return DataLoader(_CroppedPictures(images, crop), batch_size=batch_size, num_workers=workers)

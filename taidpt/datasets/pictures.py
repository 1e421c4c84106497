"""Streams pictures of a data set through a torch DataLoader, cropped as on a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from taidpt.datasets.base import LabelledImages
from taidpt.runtime.sources.picture_files import read_image

__all__ = ["PictureDataset", "picture_loader"]

Crop = Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]]
Item = tuple[Tensor, Tensor]


class PictureDataset(Dataset[Item]):
    """Pictures and targets by position.

    Args:
        images: N pictures.
        crop: frame → uint8 RGB [H, W, 3], such as `taidpt.runtime.Preprocessor`.
    """

    def __init__(self, images: LabelledImages, crop: Crop) -> None:
        self.images = images
        self.crop = crop

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Item:
        # A copy, because a picture that already has the right size may be read-only.
        frame = np.array(self.crop(read_image(self.images.paths[position])))
        return torch.from_numpy(frame), torch.from_numpy(self.images.targets[position])


def picture_loader(
    images: LabelledImages, crop: Crop, batch_size: int = 64, workers: int = 0
) -> DataLoader[Item]:
    """Stream batches in file order: uint8 [B, H, W, 3] and int8 targets [B, C]."""
    return DataLoader(PictureDataset(images, crop), batch_size=batch_size, num_workers=workers)

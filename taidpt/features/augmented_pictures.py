"""Features of training pictures that are augmented anew in every epoch.

torchvision applies random crops or cutout, AutoAugment and flips; a DataLoader streams the
pictures, which are encoded batch by batch. An augmentation depends only on seed, epoch and picture,
so that a stopped run resumes as it would have continued.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from taidpt.clip.model import ClipModel
from taidpt.datasets.base import LabelledImages
from taidpt.encoders.local_branch import image_encoder
from taidpt.features.caption_features import FeatureBatch
from taidpt.features.pictures import normalised
from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.picture_files import read_image

__all__ = ["AUGMENTATIONS", "AugmentedPictures", "augmentation"]

AUGMENTATIONS = ("crop", "cutout")
_STREAM = 3  # number of this random stream; 2 is the order of pictures
Change = Callable[[Tensor], Tensor]
Position = tuple[int, int]


def augmentation(kind: str, side: int) -> Change:
    """Picture uint8 [3, H, W] → uint8 [3, side, side], by torch's random numbers.

    Args:
        kind: "crop" for a random resized crop; "cutout" for the whole picture resized, with a
            rectangle of 2 to 25 % of its area blanked. Both then flip and apply ImageNet's
            AutoAugment.
        side: in pixels.
    Raises:
        InputError: an unknown kind.
    """
    from torchvision.transforms import InterpolationMode, v2

    bicubic = InterpolationMode.BICUBIC
    first: dict[str, list[Change]] = {
        "crop": [v2.RandomResizedCrop(side, interpolation=bicubic)],
        "cutout": [v2.Resize((side, side), bicubic), v2.RandomErasing(1.0, (0.02, 0.25))],
    }
    if kind not in first:
        raise InputError(f"augmentation {kind!r}: expected one of {', '.join(AUGMENTATIONS)}")
    change: Change = v2.Compose([*first[kind], v2.RandomHorizontalFlip(), v2.AutoAugment()])
    return change


@dataclass(frozen=True, eq=False)
class AugmentedPictures:
    """N pictures, augmented differently and encoded in every epoch.

    Attributes:
        clip: the model, at the size of the augmented pictures.
        images: N pictures.
        kind: one of AUGMENTATIONS.
        seed: of the augmentations.
        workers: processes that read and augment pictures; 0 for the main process.
    """

    clip: ClipModel
    images: LabelledImages
    kind: str
    seed: int = 0
    workers: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def sha256(self) -> str:
        """SHA-256 over names and sizes of the pictures and their augmentation."""
        digest = hashlib.sha256(f"{self.kind} {self.clip.image_size} {self.seed}\n".encode())
        for name, path in zip(self.images.ids, self.images.paths, strict=True):
            digest.update(f"{name}\0{path.stat().st_size}\n".encode())
        return digest.hexdigest()

    def stream(
        self, epoch: int, batches: Sequence[npt.NDArray[np.int64]]
    ) -> Iterator[FeatureBatch]:
        """Features of these pictures, batch by batch, as augmented in this epoch."""
        positions = [[(epoch, int(row)) for row in rows] for rows in batches]
        change = augmentation(self.kind, self.clip.image_size)
        changed = _ChangedPictures(self.images, change, self.seed)
        loader = DataLoader(changed, batch_sampler=positions, num_workers=self.workers)
        return map(self._encode, loader)

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> FeatureBatch:
        whole, patches = image_encoder(self.clip)(normalised(self.clip, pixels))
        return FeatureBatch(F.normalize(whole, dim=-1), F.normalize(patches, dim=-1), None)


class _ChangedPictures(Dataset[Tensor]):
    """Pictures by (epoch, number), uint8 [3, side, side]."""

    def __init__(self, images: LabelledImages, change: Change, seed: int) -> None:
        self.images, self.change, self.seed = images, change, seed

    def __getitem__(self, position: Position) -> Tensor:
        epoch, row = position
        frame = np.atleast_3d(read_image(self.images.paths[row]))
        if frame.dtype != np.uint8:
            raise InputError(f"{self.images.paths[row]}: 16-bit grey cannot be augmented")
        picture = torch.from_numpy(frame.copy()).permute(2, 0, 1)[:3].expand(3, -1, -1)
        state = np.random.SeedSequence([self.seed, _STREAM, epoch, row]).generate_state(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(state[0]))
            return self.change(picture.contiguous())

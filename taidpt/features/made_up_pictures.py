"""Made-up pictures: what a picture scores on tags that it does not have, without any picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from taidpt.clip.model import ClipModel
from taidpt.encoders.local_branch import image_encoder
from taidpt.features.caption_features import FeatureBatch
from taidpt.features.pictures import normalised

__all__ = ["made_up_features", "made_up_pictures"]

_PICTURES = 48
_SEED = 20231


def made_up_pictures(size: int, count: int = _PICTURES) -> npt.NDArray[np.uint8]:
    """Pictures of nothing, always the same ones: coloured noise with natural pictures' spectrum.

    Every second one is smooth, the others are grainy (amplitude falls with frequency, to the power
    of 2 and of 1).

    Returns:
        uint8 RGB, [count, size, size, 3].
    """
    generator = np.random.default_rng(_SEED)
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1.0 / size)[:, :, None]
    pictures = np.empty((count, size, size, 3), np.uint8)
    for index in range(count):
        noise = np.fft.fft2(generator.standard_normal((size, size, 3)), axes=(0, 1))
        field = np.fft.ifft2(noise * frequency ** -(1.0 + index % 2), axes=(0, 1)).real
        field = (field - field.mean()) / field.std()
        level, contrast = generator.uniform(60, 195, 3), generator.uniform(10, 60)
        pictures[index] = np.clip(level + contrast * field, 0, 255)
    return pictures


@torch.no_grad()
def made_up_features(clip: ClipModel) -> FeatureBatch:
    """Features of the made-up pictures, unit rows.

    Raises:
        InputError: the architecture has no local branch.
    """
    encoder = image_encoder(clip).to(clip.device)
    pixels = torch.from_numpy(made_up_pictures(clip.image_size)).permute(0, 3, 1, 2)
    parts = [encoder(normalised(clip, part)) for part in torch.split(pixels, 16)]
    pooled, patches = (F.normalize(torch.cat(kind), dim=-1) for kind in zip(*parts, strict=True))
    return FeatureBatch(pooled, patches, None)

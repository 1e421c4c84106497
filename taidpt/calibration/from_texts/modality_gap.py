"""From scores of texts to scores of pictures, without any picture of the user's.

A CLIP's pictures lie apart from its texts: a picture of a dog scores lower on "dog" than a caption
that names it, by a margin that differs from model to model. Made-up pictures show that margin: what
they score is what a picture scores on tags that it does not have. How far above that a tag's own
pictures lie, captions do not tell: prompts that were tuned on captions part captions almost wholly,
templates hardly, and both part pictures alike. It is taken to be what `taidpt calibrate` takes it
for before it sees a frame. `taidpt calibrate` on pictures of one's own does better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from taidpt.clip.model import ClipModel
from taidpt.encoders.local_branch import image_encoder
from taidpt.features.caption_features import FeatureBatch

__all__ = [
    "TYPICAL_LIFT",
    "Background",
    "expected_densities",
    "made_up_features",
    "made_up_pictures",
]

_PICTURES = 48
_SEED = 20231
_LEAST_SPREAD = 1e-6

# The same lift that calibration on frames starts from (a test holds them equal: this module must
# not need SciPy), the doubt of its logarithm: tags differ by 0.2, their mean is known to 0.3
TYPICAL_LIFT = 3.5
_LIFT_DOUBT = 0.36  # of its logarithm: tags differ by 0.2, their mean is known to 0.3
_PLACE_DOUBT = 0.3  # spreads by which pictures of nothing may lie beside pictures of other things
_TAIL = 15.0  # degrees of freedom of both bells
_NODES = 15

Floats = npt.NDArray[np.floating]


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
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (clip.mean, clip.std))
    pixels = torch.from_numpy(made_up_pictures(clip.image_size)).permute(0, 3, 1, 2)
    parts = [
        encoder(((part.float() / 255 - mean) / std).to(clip.device))
        for part in torch.split(pixels, 16)
    ]
    pooled, patches = (F.normalize(torch.cat(kind), dim=-1) for kind in zip(*parts, strict=True))
    return FeatureBatch(pooled, patches, None)


@dataclass(frozen=True)
class Background:
    """Where pictures score on tags that they do not have.

    All tags have one place and one spread: made-up pictures are all alike, so on a single tag they
    lie further from where other pictures would than tags lie from each other.
    """

    centre: float
    spread: float

    @classmethod
    def of(cls, scores: Floats) -> Background:
        """From scores of made-up pictures, [N, C]; the spread is that within a tag."""
        within = float(np.sqrt(scores.var(axis=0).mean()))
        return cls(float(scores.mean()), max(within, _LEAST_SPREAD))


def expected_densities(places: Floats) -> tuple[Floats, Floats]:
    """How often pictures without and with a tag are to be expected at a score.

    Both are bells of one spread; how far apart, and where, is not known exactly, so they are means
    over what is likely.

    Args:
        places: scores in spreads above the background's centre, [B].
    Returns:
        densities, [B] each, both times one constant.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()
    moved = places - _PLACE_DOUBT * nodes[:, None]
    lifts = TYPICAL_LIFT * np.exp(_LIFT_DOUBT * nodes)
    with_tag = _bell(moved[:, None] - lifts[:, None])  # [moves, lifts, B]
    return weights @ _bell(moved), weights @ (weights @ with_tag)


def _bell(z: Floats) -> Floats:
    return np.asarray((1 + z * z / _TAIL) ** (-(_TAIL + 1) / 2))

"""Simulated score matrices as CLIP's two heads give them on photographs.

Cosines around 0.2: every tag has its own level, gain and noise, every picture lifts all tags a
little, scenes bring tags together and lift what belongs to them even where it is not seen, and the
two heads share most of their noise. How well a tag can be told ranges from AP 0.3 to 0.99.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taidpt.score_file import ScoreFile

__all__ = ["PHOTO_FAMILIES", "PhotoFamily"]

Floats = npt.NDArray[np.float64]
Random = np.random.Generator

_SCENES = 6


@dataclass(frozen=True)
class PhotoFamily:
    """One kind of matrix; spreads are in units of a tag's noise.

    Attributes:
        prevalence: least and most common tag.
        separation: least and most, of the distance between with and without.
        levels: spread of the tags' own levels.
        lift: spread of what a picture adds to all its tags.
        scene: how far a scene lifts the tags that belong to it.
    """

    prevalence: tuple[float, float]
    separation: tuple[float, float]
    levels: float
    lift: float
    scene: float

    def draw(self, random: Random, frames: int, tags: int, absent: float) -> ScoreFile:
        """Draw one matrix of so many frames and tags, of which a share never occurs."""
        scenes = random.dirichlet(np.full(_SCENES, 0.4), frames)
        belongs = scenes @ random.standard_normal((_SCENES, tags))
        belongs = (belongs - belongs.mean(axis=0)) / belongs.std(axis=0)
        low, high = np.log(self.prevalence)
        shares = np.exp(random.uniform(low, high, tags))
        shares[tags - int(absent * tags) :] = 0.0
        wish = 0.7 * belongs + random.standard_normal((frames, tags))
        cuts = [np.quantile(wish[:, tag], 1 - share) for tag, share in enumerate(shares)]
        present = wish > np.array(cuts)
        noise = random.standard_normal((frames, tags)) + self.scene * belongs
        noise += self.lift * random.standard_normal((frames, 1))
        visible = random.gamma(6.0, 1 / 6.0, present.shape)
        separation = random.uniform(*self.separation, tags)
        level = 0.2 + 0.02 * self.levels * random.standard_normal(tags)
        gain = 0.02 * np.exp(0.25 * random.standard_normal(tags))
        whole, local = (
            level
            + 0.005 * random.standard_normal(tags)
            + gain * (noise + own * random.standard_normal(present.shape))
            + gain * present * visible**power * separation
            for own, power in ((0.4, 1.0), (0.6, 0.6))
        )
        targets = np.where(present, 1, -1).astype(np.int8)
        names = tuple(f"tag {index}" for index in range(tags))
        return ScoreFile(targets, whole, local, names)


PHOTO_FAMILIES = {
    "photos": PhotoFamily((0.01, 0.4), (2.5, 6.0), 0.8, 0.5, 0.4),
    "photos, uneven": PhotoFamily((0.003, 0.45), (1.2, 7.0), 0.8, 0.5, 0.6),
    "photos, level": PhotoFamily((0.01, 0.4), (2.0, 5.0), 0.1, 0.3, 0.4),
    "photos, scenes": PhotoFamily((0.005, 0.3), (2.5, 6.0), 0.5, 0.6, 1.0),
}

"""What a bank remembers of the scene that it was adapted to, to notice frames of another camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.adapting.similarity import Features
from taidpt.runtime.errors import BundleError
from taidpt.runtime.storage.json_reader import JsonReader

__all__ = ["SceneMark"]

# The least like twentieth of the frames: a dark or blurred frame must not widen the scene.
_QUANTILE = 0.05
_DIGITS = 4  # of the mean, so that a bank's file grows by a few kilobytes


@dataclass(frozen=True, eq=False)
class SceneMark:
    """The scene's mean global feature, and how like it its frames are.

    Attributes:
        mean: of unit length, [D].
        least: cosine with the mean that all but a twentieth of the scene's frames reach.
    """

    mean: npt.NDArray[np.float64]
    least: float

    @classmethod
    def of(cls, scene: Features) -> SceneMark:
        """The mark of a scene, tiles as frames of their own."""
        rows = _rows(scene)
        mean = rows.mean(axis=0)
        mean = np.round(mean / max(float(np.linalg.norm(mean)), 1e-12), _DIGITS)
        return cls(mean, float(np.quantile(rows @ mean, _QUANTILE)))

    def share(self, frames: Features) -> float:
        """Share of frames that are as like the scene as its own."""
        return float((_rows(frames) @ self.mean >= self.least).mean())

    def is_another(self, frames: Features) -> bool:
        """Whether frames are of another scene: most are less like it than its least like ones.

        Of the scene's own frames a twentieth is, whatever they show, so this does not take another
        day for another camera. Two cameras of like views are not told apart.
        """
        return self.share(frames) < 0.5

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"mean": self.mean.tolist(), "least": self.least}

    @classmethod
    def from_json(cls, document: Any, dim: int) -> SceneMark | None:
        """From a bank's metadata; None where it has no mark of D numbers."""
        try:
            reader = JsonReader(document, "scene")
            mean, least = reader.numbers("mean"), reader.number("least")
        except (BundleError, TypeError):
            return None
        return cls(np.array(mean), least) if len(mean) == dim else None


def _rows(scene: Features) -> npt.NDArray[np.float64]:
    return scene.whole.reshape(-1, scene.whole.shape[-1]).astype(np.float64)

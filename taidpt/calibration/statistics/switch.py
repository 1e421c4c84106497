"""From probabilities to switches: where a tag turns on and off, and the map that ships."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics.sample import Sample
from taidpt.runtime.bank.thresholds import UNCERTAIN

__all__ = ["Switch", "above_all", "choose_switches"]

Floats = npt.NDArray[np.float64]

# The map from score to probability: its points (a kilobyte a tag in the manifest), and the least
# distance of two of them as a share of the tag's range, below which they are rounding.
_MAP_POINTS = 33
_LEAST_STEP = 1e-6
# A tag goes off where the expected F1 has fallen to this share of its best: low enough that a score
# that trembles at the threshold does not blink, at next to no cost in F1.
_OFF_SHARE = 0.95
# A tag is seen when some frame more likely than not has it. Below this expected F1 it is not.
_SIGN = 0.4
_WORTH_SAYING = 0.1


@dataclass(frozen=True)
class Switch:
    """Thresholds of one tag, in units of the sample.

    Attributes:
        on, off: thresholds. band: where the probability passes 0.2 and 0.8.
        expected_f1: at `on`.
        expected_sightings: sum of probabilities over frames.
        highest: the highest probability of any frame.
        curve: rising scores and rising probabilities, at most 33 each.
    """

    on: float
    off: float
    band: tuple[float, float]
    expected_f1: float
    expected_sightings: float
    highest: float
    curve: tuple[Floats, Floats]

    @property
    def seen(self) -> bool:
        """Whether these frames hold any sign of the tag."""
        return self.highest >= _SIGN and self.expected_f1 >= _WORTH_SAYING

    def facts(self, seen: bool, frames: int) -> dict[str, Any]:
        """The fields of a calibrated tag that a sample of so many frames gives, but thresholds."""
        return {
            "band": self.band,
            "state": "seen" if seen else "not seen",
            "expected_share": self.expected_sightings / frames,
            "expected_f1": self.expected_f1 if seen else 0.0,
            "scores": tuple(self.curve[0].tolist()),
            "probabilities": tuple(self.curve[1].tolist()),
        }


def above_all(values: Floats) -> tuple[float, float]:
    """On and off for a tag without any sign: a little above all of its scores.

    Args:
        values: scores of the tag, rising, [N].
    """
    spread = float(np.subtract(*np.quantile(values, [0.84, 0.16]))) / 2
    return float(values[-1]) + 0.25 * spread, float(values[-1]) - 0.25 * spread


def choose_switches(sample: Sample, probabilities: Floats) -> list[Switch]:
    """Thresholds with the best expected F1 of every tag.

    Args:
        probabilities: of the tag at each of the sample's values, [C, B].
    """
    rising = np.maximum.accumulate(probabilities, axis=1)
    return [_choose(*row) for row in zip(sample.values, sample.counts, rising, strict=True)]


def _choose(values: Floats, counts: Floats, rising: Floats) -> Switch:
    hits = rising * counts
    said = np.cumsum(counts[::-1])[::-1]
    f1 = 2 * np.cumsum(hits[::-1])[::-1] / (said + hits.sum())
    f1[1:][values[1:] == values[:-1]] = -1.0  # no threshold separates equal scores
    cuts = np.append(values[0], (values[1:] + values[:-1]) / 2)
    best = int(f1.argmax())
    lowest = int(np.flatnonzero(f1 >= _OFF_SHARE * f1[best])[0])
    band = tuple(float(np.interp(level, rising, values)) for level in UNCERTAIN)
    return Switch(
        on=float(cuts[best]),
        off=float(cuts[min(lowest, best)]),
        band=(band[0], band[1]),
        expected_f1=float(f1[best]),
        expected_sightings=float(hits.sum()),
        highest=float(rising[-1]),
        curve=_curve(values, rising),
    )


def _curve(values: Floats, rising: Floats) -> tuple[Floats, Floats]:
    """A few points of the map: evenly over probability and over the scores."""
    by_height = np.interp(np.linspace(rising[0], rising[-1], _MAP_POINTS - 12), rising, values)
    by_score = np.quantile(values, np.linspace(0, 1, 12))
    points = np.unique(np.concatenate([by_height, by_score]))
    points = points[np.append(True, np.diff(points) > _LEAST_STEP * np.ptp(points))]
    return points, np.interp(points, values, rising)

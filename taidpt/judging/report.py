"""Our thresholds beside those that see labels and those that everybody tries first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics.estimator import Calibration
from taidpt.judging.baselines import (
    best_single_threshold,
    oracle_thresholds,
    otsu_thresholds,
    two_gaussians,
)
from taidpt.judging.measures import (
    expected_calibration_error,
    f1_scores,
    false_on_rate,
)

__all__ = ["ThresholdComparison", "compare"]

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]


@dataclass(frozen=True)
class ThresholdComparison:
    """Macro-F1 of each way, 0 … 1, over the tags that have a positive.

    Attributes:
        ours: without labels.
        oracle: every tag's best threshold on these labels.
        single: the one best threshold on these labels.
        otsu, gaussians: without labels.
        calibration_error: of our probabilities.
        false_on: share of (frame, tag) that we turn on, over tags without a positive; NaN when
            every tag has one.
        recognised: share of the tags without a positive that are said not to be seen; NaN as well.
    """

    ours: float
    oracle: float
    single: float
    otsu: float
    gaussians: float
    calibration_error: float
    false_on: float
    recognised: float

    def lines(self) -> Iterator[str]:
        """As people read it."""
        yield "macro-F1, % of tags with a positive"
        for name, value in (
            ("ours, no labels", self.ours),
            ("one threshold, chosen with these labels", self.single),
            ("a threshold a tag, chosen with these labels", self.oracle),
            ("Otsu a tag, no labels", self.otsu),
            ("two Gaussians a tag, no labels", self.gaussians),
        ):
            yield f"  {name:44}{100 * value:6.1f}"
        yield f"expected calibration error of the probabilities {self.calibration_error:.4f}"
        if np.isfinite(self.false_on):
            yield f"tags that never occur are on in {self.false_on:.2%} of frames"


def compare(scores: Floats, targets: Targets, calibration: Calibration) -> ThresholdComparison:
    """Measure a calibration and its rivals on labelled scores.

    Args:
        scores: [N, C]. targets: 1, −1, or 0 for left out, [N, C], at least one 1.
    """

    def macro(thresholds: Floats) -> float:
        return float(np.nanmean(f1_scores(scores, targets, thresholds)))

    return ThresholdComparison(
        ours=macro(calibration.on),
        oracle=macro(oracle_thresholds(scores, targets)),
        single=macro(best_single_threshold(scores, targets)),
        otsu=macro(otsu_thresholds(scores)),
        gaussians=macro(two_gaussians(scores)),
        calibration_error=expected_calibration_error(calibration.probabilities(scores), targets),
        false_on=false_on_rate(scores, targets, calibration.on),
        recognised=_recognised(targets, calibration),
    )


def _recognised(targets: Targets, calibration: Calibration) -> float:
    absent = ~(targets > 0).any(axis=0)
    if not absent.any():
        return float("nan")
    return float(np.array([tag.state != "seen" for tag in calibration.tags])[absent].mean())

"""The printed table: digits that tell thresholds apart, whatever their scale; columns in line."""

from __future__ import annotations

import numpy as np
import pytest

from taidpt.calibration.statistics.estimator import Calibration, TagCalibration, calibrate
from taidpt.calibration.table import print_table, score_format
from tests.taidpt.calibration.simulator import Size, simulate


def tag(name: str, on: float, off: float) -> TagCalibration:
    return TagCalibration(name, on, off, (off, on), "seen", 0.1, 0.9, "high", (off, on), (0, 1))


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        ((0.5, 1.7), ["0.500", "1.700"]),
        ((3.2e-3, 4.1e-3), ["0.0032000", "0.0041000"]),
        ((3.2e-6, 4.1e-6), ["3.2000e-06", "4.1000e-06"]),
        ((12345.6, 20000.0), ["12346", "20000"]),
        ((1e4, 1e4 + 0.0123), ["10000.00000", "10000.01230"]),
        ((1.0, 1.0 + 1e-9), ["1.000000000000e+00", "1.000000001000e+00"]),
        ((-2.0, -2.0), ["-2.000", "-2.000"]),
        ((0.0, 0.0), ["0.000", "0.000"]),
    ],
)
def test_four_digits_of_the_spread(scores: tuple[float, float], shown: list[str]) -> None:
    assert [format(score, score_format(scores)) for score in scores] == shown


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_thresholds_of_any_scale_are_told_apart(
    scale: float, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = (tag("a cat", 0.31 * scale, 0.3 * scale), tag("cow", -0.9 * scale, -0.95 * scale))
    print_table(Calibration(tags, 500, 40.2))
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head == "500 frames, worth 40 independent ones, 2 tags"
    values = [[float(cell) for cell in line[5:].split()[:2]] for line in lines[1:]]
    np.testing.assert_allclose(values, [(one.on, one.off) for one in tags], rtol=0.02)
    for column in ("on", "off", "seen in"):
        end = lines[0].index(column) + len(column)
        assert all(line[end - 1] != " " and line[end] == " " for line in lines)


def test_the_resolution_of_scores_bounds_what_counts_as_moving() -> None:
    """A billionth of the level is noise, for doubles too: float32 steps 6e-5 at a level of 1,000.

    From a few times that on, scores far from zero are as good as those about it.
    """
    scores = simulate("plain", 3, Size(300, 3)).merged()
    scores = (scores - scores.mean()) / scores.std()
    still = calibrate(1e3 + 1e-7 * scores)
    assert {one.state for one in still.tags} == {"constant"}
    small = 1e-4 * scores
    lifted, about_zero = calibrate(1e3 + small), calibrate(small)
    assert {one.state for one in lifted.tags} == {"seen"}
    np.testing.assert_allclose(lifted.on - 1e3, about_zero.on, atol=2e-6)

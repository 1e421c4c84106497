"""What a command says of a graph in another precision."""

from __future__ import annotations

from pathlib import Path

import pytest

from taidpt.export.cli.printing import precision_lines
from taidpt.export.precision.request import EngineOptions, EngineRequest

INT8 = {
    "passed": True,
    "gated": ["scores"],
    "outputs": {"scores": {"minimum": 0.99}},
    "bound": 0.98,
    "notes": {
        "layers": 4,
        "layers_in_fp32": [],
        "calibration": "minmax",
        "calibration_frames": 9,
        "verified": True,
    },
}


@pytest.mark.parametrize(
    ("calibrate", "images", "labels", "flattered"),
    [
        ("day", "day", None, True),
        ("day", "x/../day", None, True),
        ("day", "day/monday", None, True),
        ("day/monday", "day", None, True),
        ("day", None, "labels.json", True),
        ("day", "night", "labels.json", False),
        ("day", "daylight", None, False),
        ("day", None, None, False),
        (None, "day", None, False),
    ],
)
def test_a_graph_judged_on_what_it_was_calibrated_on_says_so(
    calibrate: str | None, images: str | None, labels: str | None, flattered: bool
) -> None:
    paths = [None if name is None else Path(name) for name in (calibrate, images, labels)]
    options = EngineOptions("int8")
    request = EngineRequest(options, paths[0], images=paths[1], labels=paths[2])
    said = "\n".join(precision_lines(INT8, request))
    assert ("judged on its calibration pictures" in said) is flattered
    no_ranges = {**INT8, "notes": {"verified": True}}
    assert "flatters" not in "\n".join(precision_lines(no_ranges, request))

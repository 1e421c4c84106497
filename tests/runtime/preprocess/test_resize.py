"""The banded resize: equal to Pillow, and safe where one call interrupts another on its thread."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taidpt.runtime.bundle.view import plan_crop
from taidpt.runtime.preprocess import resize
from taidpt.runtime.preprocess.resize import BandedResize


def by_pillow(frame: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    """Pillow's two passes one by one, since its order depends on its version and on the frame."""
    plan = plan_crop(frame.shape[:2], (side, side))
    narrow = Image.fromarray(frame).resize((plan.resized_width, frame.shape[0]), 3)
    small = np.asarray(narrow.resize((plan.resized_width, plan.resized_height), 3))
    return small[plan.top : plan.top + side, plan.left : plan.left + side]


def test_smooth_and_noisy_frames_of_any_shape_are_pillows_but_for_rounding_in_fp32() -> None:
    """Long slopes put many sums on a half at once: the worst that fp32 can do."""
    generator = np.random.default_rng(7)
    differing, count, shares = 0, 0, []
    for index in range(200):
        width = int(generator.integers(30, 400))
        height = int(width * generator.uniform(0.4, 3.2))
        side = int(generator.choice([64, 96, 160, 224, 336]))
        if index % 5 < 2:
            frame = generator.integers(0, 256, (height, width, 3), np.uint8)
        else:
            y, x = np.mgrid[:height, :width]
            periods = generator.uniform(2, 90, (3, 2))
            waves = [np.sin(x / across + y / down) for across, down in periods]
            frame = np.rint(127.5 + 127.5 * np.stack(waves, -1)).astype(np.uint8)
        found = BandedResize((height, width), (side, side), 3)(frame)
        levels = np.abs(found.astype(int) - by_pillow(frame, side))
        assert levels.max() <= 2
        shares.append((levels > 1).mean())
        differing, count = differing + int((levels > 0).sum()), count + levels.size
    assert max(shares) <= 0.002
    assert differing / count <= 0.0002


@pytest.mark.parametrize("exact", [True, False])
def test_a_call_inside_a_signal_handler_leaves_the_interrupted_call_intact(exact: bool) -> None:
    """Python runs signal handlers between any two instructions: every line is interrupted once."""
    generator = np.random.default_rng(3)
    frames = generator.integers(0, 256, (2, 90, 130, 3)).astype(np.uint8)
    resizer = BandedResize((90, 130), (17, 23), 3, exact)
    expected = [resizer(frame) for frame in frames]
    lines: set[int] = set()

    def interrupt(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != resize.__file__:
            return None
        if event == "line" and frame.f_lineno not in lines:
            lines.add(frame.f_lineno)
            sys.settrace(None)
            np.testing.assert_array_equal(resizer(frames[1]), expected[1])
            sys.settrace(interrupt)
        return interrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        result = resizer(frames[0])
    finally:
        sys.settrace(before)
    np.testing.assert_array_equal(result, expected[0])
    assert len(lines) > 15

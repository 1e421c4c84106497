"""The banded resize when one call interrupts another on the same thread."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest

from taidpt.runtime.preprocess import resize
from taidpt.runtime.preprocess.resize import BandedResize


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

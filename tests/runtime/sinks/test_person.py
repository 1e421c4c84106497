"""The timeline for a person."""

from __future__ import annotations

import numpy as np
import pytest

from taidpt.runtime.events.machine import Interval
from taidpt.runtime.printable import clock_text, printable
from taidpt.runtime.sinks.person import PersonSink, timeline_lines
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.hostile_names import HOSTILE


def test_clocks_and_bars() -> None:
    assert [clock_text(s) for s in (0, 3.25, 59.96, 3723.4)] == [
        "0:00.0",
        "0:03.2",
        "1:00.0",
        "1:02:03.4",
    ]
    many = [Interval("dog", i, i + 0.5, 1) for i in range(8)]
    (line,) = timeline_lines(many, 10.0)
    assert line.startswith("dog  ██")
    assert line.endswith("0:05.0–0:05.5, and 2 more")
    assert timeline_lines([], 4.0) == []


def test_control_characters_of_names_reach_no_terminal(
    hostile: Tagger, hostile_moments: list[Moment], capsys: pytest.CaptureFixture[str]
) -> None:
    picture = next(iter(hostile.stream(np.zeros((16, 16, 3), np.uint8))))
    intervals = [Interval(name, 0.0, 1.0, 1.0) for name in HOSTILE]
    for live in (False, True):
        sink = PersonSink(live=live)
        sink.write(picture)
        for moment in hostile_moments:
            sink.write(moment)
        sink.end_source(hostile_moments[0].frame.source, intervals, 4.0)
    text = capsys.readouterr().out.replace("\n", "")
    assert "[2J" in text
    assert printable(text) == text

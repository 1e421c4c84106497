"""The timeline for a person."""

from __future__ import annotations

from taidpt.runtime.events.machine import Interval
from taidpt.runtime.sinks.person import clock_text, timeline_lines


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

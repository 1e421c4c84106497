"""Timelines, parsed again."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from taidpt.runtime.pages.timeline import Bar, Row, Thumbnail, timeline

ROWS = [
    Row("dog", [Bar(0.0, 30.0, "dog: 0:00–0:30", target="e0"), Bar(60.0, 60.0, "short")]),
    Row("<cat> & co", [Bar(30.0, 90.0, "truth", "truth"), Bar(40.0, 80.0, "found")]),
]


def parsed(*arguments: object) -> ElementTree.Element:
    text = timeline(*arguments)  # type: ignore[arg-type]
    for tag in ("input", "img"):  # HTML's void elements
        text = re.sub(rf"<({tag} [^>]*)>", r"<\1/>", text)
    return ElementTree.fromstring(text.replace(" checked/", ' checked=""/'))


def test_bars_stand_at_their_times_in_percent() -> None:
    root = parsed("s0", ROWS, 120.0)
    found = {rect[0].text: rect.attrib for rect in root.iter("rect")}
    assert found["dog: 0:00–0:30"]["x"] == "0.000%"
    assert found["dog: 0:00–0:30"]["width"] == "25.000%"
    assert float(found["short"]["width"].rstrip("%")) > 0.1
    assert found["truth"]["class"] == "truth"
    order = [rect[0].text for rect in root.iter("rect")]
    assert order.index("truth") < order.index("found"), "the truth lies behind"
    assert [link.attrib["href"] for link in root.iter("a")] == ["#e0"]
    assert "<cat> & co" in "".join(root.itertext())


def test_ticks_are_clock_times_and_get_closer_with_the_zoom() -> None:
    root = parsed("s0", ROWS, 7200.0)
    labels = {
        group.attrib["class"]: [text.text for text in group.iter("text")]
        for group in root.iter("g")
    }
    assert labels["x1"] == ["0:00", "30:00", "1:00:00", "1:30:00", "2:00:00"]
    assert labels["x4"][:3] == ["0:00", "5:00", "10:00"]
    assert len(labels["x1"]) < len(labels["x4"]) < len(labels["x16"]) <= 97
    tenths = parsed("s0", ROWS, 0.9)
    assert next(text.text for text in tenths.iter("text") if text.text != "0:00.0") == "0:00.2"


def test_thumbnails_that_would_overlap_wait_for_a_wider_timeline() -> None:
    times = [0.0, 1.0, 30.0, 100.0]
    items = [Thumbnail(time_s, b"jpeg", str(time_s), "e") for time_s in times]
    root = parsed("s0", ROWS, 120.0, items)
    film = {
        link.attrib["title"]: link.attrib["class"].split()
        for link in root.iter("a")
        if "class" in link.attrib
    }
    assert film["0.0"] == ["p1", "d1", "p4", "d4", "p16", "d16"]
    assert film["1.0"] == ["d16"]
    assert film["30.0"] == ["d1", "p4", "d4", "p16", "d16"]
    assert film["100.0"] == film["0.0"]


def test_nothing_to_show_is_no_timeline() -> None:
    assert timeline("s0", [], 10.0) == ""
    assert timeline("s0", ROWS, 0.0) == ""

"""The report page, parsed again."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import timeline
from taidpt.runtime.printable import clock_text
from taidpt.runtime.sinks.report import ReportSink
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.hostile_names import HOSTILE, INTERVALS
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_video


class Page(HTMLParser):
    """Collects tags, attributes and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_opens_offline_and_escapes(hostile_moments: list[Moment], tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    sink = ReportSink(path, "Tags <of> today")
    assert "No frames" in path.read_text("utf-8")
    for moment in hostile_moments:
        sink.write(moment)
    sink.end_source(hostile_moments[0].frame.source, INTERVALS, 4.0)
    sink.close()
    text = path.read_text("utf-8")
    page = Page()
    page.feed(text)
    kinds = [tag for tag, _ in page.found]
    assert "script" not in kinds
    assert "link" not in kinds
    assert kinds.count("figure") == len(HOSTILE)
    assert kinds.count("rect") == len(INTERVALS)
    assert "<of>" in page.text
    assert HOSTILE[0] in page.text
    images = [attributes["src"] or "" for tag, attributes in page.found if tag == "img"]
    assert all(source.startswith("data:image/jpeg;base64,") for source in images)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    drawing = re.search(r"<svg.*</svg>", text, re.DOTALL)
    assert drawing is not None
    assert len(ElementTree.fromstring(drawing[0])) > 4
    with pytest.raises(InputError, match="cannot be written"):
        ReportSink(tmp_path / "no" / "r.html")


def test_report_has_a_picture_of_each_event(tmp_path: Path) -> None:
    """A tag that comes twice has two cards; each bar of the timeline leads to its own."""
    path = tmp_path / "r.html"
    bundle = tiny_bundle(tmp_path / "lively.taidpt", TinySpec(thresholds=(1.0,)))
    video = colour_video(tmp_path / "twice.mp4", frames=200)
    with Tagger.load(bundle, device="cpu") as tagger:
        moments = list(tagger.stream(video, every=2))
    sink = ReportSink(path)
    for moment in moments:
        sink.write(moment)
    source, last = moments[0].frame.source, moments[-1].time or 0.0
    ons = [event for moment in moments for event in moment.events if event.kind == "on"]
    intervals = timeline([event for moment in moments for event in moment.events], last)
    assert len(intervals) == len(ons) > len({event.tag for event in ons}), "no tag comes twice"
    sink.end_source(source, intervals, last)
    sink.close()
    page = Page()
    page.feed(path.read_text("utf-8"))
    cards = [str(attributes["id"]) for tag, attributes in page.found if tag == "figure"]
    assert len(cards) == len(ons)
    links = [
        attributes["href"]
        for (tag, attributes), (following, _) in itertools.pairwise(page.found)
        if tag == "a" and following == "rect"
    ]
    assert sorted(links) == sorted(f"#{card}" for card in cards)
    spans = re.findall(r"<b>([^<]+)</b> ([^<]+)<br>", path.read_text("utf-8"))
    assert sorted(spans) == sorted(
        (item.tag, f"{clock_text(item.start_s)}–{'end' if item.open else clock_text(item.end_s)}")
        for item in intervals
    )


def test_pictures_are_counted_by_tag(hostile: Tagger, tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    sink = ReportSink(path)
    for moment in hostile.stream(iter(np.zeros((3, 40, 50, 3), np.uint8))):
        sink.write(moment)
    sink.close()
    text = path.read_text("utf-8")
    assert text.count("in 3 of 3") == len(HOSTILE)
    assert "<svg" not in text

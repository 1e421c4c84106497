"""The report page, parsed again."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sinks.report import ReportSink
from taidpt.runtime.stream.moment import Moment
from tests.runtime.hostile_names import HOSTILE, INTERVALS


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
    assert kinds.count("img") == len(HOSTILE)
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

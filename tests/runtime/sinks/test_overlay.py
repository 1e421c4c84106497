"""Tables, subtitles, overlays and reports: read back by what reads them."""

from __future__ import annotations

import csv
import json
import re
import resource
import signal
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Interval
from taidpt.runtime.sinks.csv_table import CsvSink
from taidpt.runtime.sinks.drawing import paint_heatmap
from taidpt.runtime.sinks.jsonl import JsonlSink
from taidpt.runtime.sinks.line_file import LineFile
from taidpt.runtime.sinks.overlay import OverlaySink
from taidpt.runtime.sinks.person import clock_text, timeline_lines
from taidpt.runtime.sinks.report import ReportSink
from taidpt.runtime.sinks.subtitles import Cue, SubtitleSink, cues
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_bundle

EVIL = ("<script>alert(1)</script>", "=2+5", 'say "hi" & go', "a\nb --> c", "naïve café 🚦")


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    """A tagger whose tags are written to break outputs; all of them are on."""
    folder = tmp_path_factory.mktemp("evil")
    spec = TinySpec(names=EVIL, thresholds=(-9.0,))
    return Tagger.load(tiny_bundle(folder / "evil.taidpt", spec), device="cpu")


@pytest.fixture(scope="module")
def moments(evil: Tagger, video_path: Path) -> list[Moment]:
    return list(evil.stream(video_path, every=10))


INTERVALS = (Interval(EVIL[0], 0.5, 2.0, 1.0), Interval(EVIL[3], 1.0, 3.0, 1.0, open=True))


def test_a_table_is_read_back(moments: list[Moment], tmp_path: Path) -> None:
    sink = CsvSink(tmp_path / "t.csv")
    for moment in moments:
        sink.write(moment)
    sink.close()
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as stream:
        header, *rows = list(csv.reader(stream))
    assert header[:4] == ["source", "index", "time_s", "on"]
    assert header[4:] == [EVIL[0], "'=2+5", EVIL[2], "a b --> c", EVIL[4]]
    assert [int(row[1]) for row in rows] == list(range(0, 100, 10))
    for row, moment in zip(rows, moments, strict=True):
        np.testing.assert_allclose([float(cell) for cell in row[4:]], moment.result.scores, 1e-4)
        assert float(row[2]) == pytest.approx(moment.time)


def test_overlapping_intervals_become_cues_one_after_another() -> None:
    items = [Interval("a", 0, 2, 1), Interval("b", 1, 3, 1), Interval("a", 5, 6, 1)]
    assert cues(items) == [
        Cue(0, 1, ("a",)),
        Cue(1, 2, ("a", "b")),
        Cue(2, 3, ("b",)),
        Cue(5, 6, ("a",)),
    ]


@pytest.mark.parametrize("form", ["vtt", "srt"])
def test_subtitles_are_valid_and_escaped(form: str, moments: list[Moment], tmp_path: Path) -> None:
    path = tmp_path / f"s.{form}"
    sink = SubtitleSink(path, form)
    sink.write(moments[0])
    sink.end_source("x", INTERVALS, 4.0)
    sink.close()
    text = path.read_text("utf-8")
    blocks = text.strip().split("\n\n")
    if form == "vtt":
        assert blocks.pop(0) == "WEBVTT"
    pattern = r"\d+\n\d\d:\d\d:\d\d[.,]\d{3} --> \d\d:\d\d:\d\d[.,]\d{3}\n[^\n<>]+"
    assert len(blocks) == 3
    assert all(re.fullmatch(pattern, block) for block in blocks)
    assert "00:00:00" + (".500" if form == "vtt" else ",500") in text
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
    assert [float(packet.pts * packet.time_base) for packet in packets] == [0.5, 1.0, 2.0]


def test_subtitles_want_one_video(evil: Tagger, moments: list[Moment], tmp_path: Path) -> None:
    picture = next(iter(evil.stream(np.zeros((16, 16, 3), np.uint8))))
    with pytest.raises(InputError, match="subtitles need a video"):
        SubtitleSink(tmp_path / "a.vtt", "vtt").write(picture)
    sink = SubtitleSink(tmp_path / "b.vtt", "vtt")
    sink.write(moments[0])
    other = next(iter(evil.stream(iter([np.zeros((16, 16, 3), np.uint8)]), fps=1)))
    with pytest.raises(InputError, match="one video"):
        sink.write(other)


def test_an_overlay_plays_at_the_same_times(
    evil: Tagger, moments: list[Moment], tmp_path: Path
) -> None:
    path = tmp_path / "o.mp4"
    sink = OverlaySink(path, (16, 16), heatmap=EVIL[1])
    for moment in moments:
        sink.write(moment)
    sink.end_source("x", (), 4.0)
    sink.close()
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([m.time for m in moments], abs=2e-3)
    assert (frames[0].width, frames[0].height) == (128, 96)
    plain, painted = moments[0].frame.image, frames[0].to_ndarray(format="rgb24")
    assert np.abs(painted.astype(int) - plain)[:40, :40].mean() > 20
    with pytest.raises(InputError, match="cannot be written as a video"):
        OverlaySink(tmp_path / "no" / "o.mp4", (16, 16))


def test_an_overlay_takes_pictures_of_changing_odd_sizes(evil: Tagger, tmp_path: Path) -> None:
    sizes = [(97, 131), (50, 41), (200, 300)]
    pictures = [np.full((*size, 3), 90, np.uint8) for size in sizes]
    sink = OverlaySink(tmp_path / "o.mkv", (16, 16))
    for moment in evil.stream(iter(pictures)):
        sink.write(moment)
    sink.close()
    with av.open(str(tmp_path / "o.mkv")) as container:
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [(130, 96)] * 3
    assert np.diff([frame.time for frame in frames]).tolist() == pytest.approx([2.0, 2.0])


def test_a_heatmap_is_painted_where_the_model_looks(evil: Tagger) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    painted = np.asarray(paint_heatmap(Image.fromarray(frame), evil(frame), EVIL[0], (16, 16)))
    np.testing.assert_array_equal(painted[:, :20], frame[:, :20])
    np.testing.assert_array_equal(painted[:, 60:], frame[:, 60:])
    assert (painted[:, 20:60] != frame[:, 20:60]).mean() > 0.5


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


def test_a_report_opens_offline_and_escapes(moments: list[Moment], tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    sink = ReportSink(path, "Tags <of> today")
    assert "No frames" in path.read_text("utf-8")
    for moment in moments:
        sink.write(moment)
    sink.end_source(moments[0].frame.source, INTERVALS, 4.0)
    sink.close()
    text = path.read_text("utf-8")
    page = Page()
    page.feed(text)
    kinds = [tag for tag, _ in page.found]
    assert "script" not in kinds
    assert "link" not in kinds
    assert kinds.count("img") == len(EVIL)
    assert kinds.count("rect") == len(INTERVALS)
    assert "<of>" in page.text
    assert EVIL[0] in page.text
    images = [attributes["src"] or "" for tag, attributes in page.found if tag == "img"]
    assert all(source.startswith("data:image/jpeg;base64,") for source in images)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    drawing = re.search(r"<svg.*</svg>", text, re.DOTALL)
    assert drawing is not None
    assert len(ElementTree.fromstring(drawing[0])) > 4
    with pytest.raises(InputError, match="cannot be written"):
        ReportSink(tmp_path / "no" / "r.html")


def fill(file: LineFile) -> None:
    for index in range(100):
        file.write(json.dumps({"index": index, "fill": "x" * 60}).encode() + b"\n")


def test_lines_are_whole_even_on_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "small.jsonl"
    file = LineFile(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"small\.jsonl: cannot be written: File too large"):
            fill(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    file.close()
    whole = path.read_text().splitlines()
    assert [json.loads(line)["index"] for line in whole] == list(range(len(whole)))
    assert 5 < len(whole) < 20
    assert path.read_text().endswith("\n")


@pytest.mark.parametrize("length", [0, 30, 200_000])
def test_lines_go_on_behind_the_last_whole_one(tmp_path: Path, length: int) -> None:
    path, whole = tmp_path / "out.jsonl", b"one\n" + b"x" * length + b"\n"
    for torn in (b"", b"half a li", b"y" * 100_000):
        path.write_bytes(whole + torn)
        lines = LineFile(path, append=True)
        assert not lines.is_empty
        lines.write(b"next\n")
        lines.close()
        assert path.read_bytes() == whole + b"next\n"
    path.write_bytes(b"torn")
    assert LineFile(path, append=True).is_empty
    assert LineFile(tmp_path / "new.jsonl", append=True).is_empty
    LineFile("/dev/null", append=True).write(b"x\n")


def test_a_table_goes_on_without_a_second_header(moments: list[Moment], tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    for append in (False, True):
        table = CsvSink(path, append)
        for moment in moments[:3]:
            table.write(moment)
        table.close()
    rows = path.read_text("utf-8").splitlines()
    assert len(rows) == 7
    assert sum(row.startswith("source,") for row in rows) == 1
    path.write_text("source,index,time_s,on,cat\n", "utf-8")
    with pytest.raises(InputError, match="its tags are others"):
        CsvSink(path, append=True).write(moments[0])
    assert path.read_text("utf-8") == "source,index,time_s,on,cat\n"


def test_odd_names_survive_json_lines(moments: list[Moment], tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "o.jsonl")
    sink.write(moments[0])
    sink.close()
    (line,) = (tmp_path / "o.jsonl").read_text("utf-8").splitlines()
    assert {tag["name"] for tag in json.loads(line)["tags"]} == set(EVIL)


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

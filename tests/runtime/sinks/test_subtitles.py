"""Subtitles, read back by FFmpeg."""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Interval
from taidpt.runtime.printable import printable
from taidpt.runtime.sinks.subtitles import Cue, SubtitleSink, cues
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.hostile_names import HOSTILE, INTERVALS


def test_overlapping_intervals_become_cues_one_after_another() -> None:
    items = [Interval("a", 0, 2, 1), Interval("b", 1, 3, 1), Interval("a", 5, 6, 1)]
    assert cues(items) == [
        Cue(0, 1, ("a",)),
        Cue(1, 2, ("a", "b")),
        Cue(2, 3, ("b",)),
        Cue(5, 6, ("a",)),
    ]


@pytest.mark.parametrize("form", ["vtt", "srt"])
def test_subtitles_are_valid_and_escaped(
    form: str, hostile_moments: list[Moment], tmp_path: Path
) -> None:
    path = tmp_path / f"s.{form}"
    sink = SubtitleSink(path, form)
    sink.write(hostile_moments[0])
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


def test_subtitles_want_one_video(
    hostile: Tagger, hostile_moments: list[Moment], tmp_path: Path
) -> None:
    picture = next(iter(hostile.stream(np.zeros((16, 16, 3), np.uint8))))
    with pytest.raises(InputError, match="subtitles need a video"):
        SubtitleSink(tmp_path / "a.vtt", "vtt").write(picture)
    sink = SubtitleSink(tmp_path / "b.vtt", "vtt")
    sink.write(hostile_moments[0])
    other = next(iter(hostile.stream(iter([np.zeros((16, 16, 3), np.uint8)]), fps=1)))
    with pytest.raises(InputError, match="exactly one source"):
        sink.write(other)


@pytest.mark.parametrize("form", ["vtt", "srt"])
def test_control_characters_of_tags_reach_no_subtitle(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"s.{form}"
    sink = SubtitleSink(path, form)
    sink.end_source("x", [Interval(name, 0.0, 1.0, 1.0) for name in HOSTILE], 1.0)
    sink.close()
    text = path.read_text("utf-8").replace("\n", "")
    assert printable(text) == text

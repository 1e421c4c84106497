"""Thresholds from texts alone are marked in every output that a person or a program reads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from taidpt.runtime.bank.thresholds import Threshold
from taidpt.runtime.painting.tag_boxes import Painter
from taidpt.runtime.results import Vocabulary
from taidpt.runtime.sinks.jsonl import JsonlSink
from taidpt.runtime.sinks.person import PersonSink
from taidpt.runtime.sinks.report import ReportSink
from taidpt.runtime.stream.moment import Moment
from tests.runtime.tiny import square_input


def with_source(moment: Moment, source: str) -> Moment:
    """The moment with thresholds of another origin."""
    names = moment.result.vocabulary.names
    thresholds = [Threshold(-9.0, -9.0, source)] * len(names)
    vocabulary = Vocabulary(names, thresholds, [None] * len(names), (1, 1))
    return dataclasses.replace(
        moment, result=dataclasses.replace(moment.result, vocabulary=vocabulary)
    )


@pytest.mark.parametrize(("source", "marked"), [("from texts", True), ("calibrated", False)])
def test_files_and_the_terminal_mark_thresholds_from_texts(
    moments: list[Moment],
    source: str,
    marked: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines, page = tmp_path / "tags.jsonl", tmp_path / "report.html"
    sinks = [JsonlSink(lines), ReportSink(page), PersonSink()]
    for moment in moments[:2]:
        for sink in sinks:
            sink.write(with_source(moment, source))
    for sink in sinks:
        sink.close()
    for line in lines.read_text("utf-8").splitlines():
        assert {tag["threshold_source"] for tag in json.loads(line)["tags"]} == {source}
    assert ("thresholds from texts: a first guess" in page.read_text("utf-8")) is marked
    assert capsys.readouterr().out.count("thresholds from texts: a first guess") == marked


def test_painted_frame_notes_thresholds_from_texts(moments: list[Moment]) -> None:
    lively = next(moment for moment in moments if moment.on)

    def footer_width(source: str) -> int:
        painted = np.asarray(
            Painter(square_input(16)).paint(with_source(lively, source), (400, 300))
        )
        # the last rows, above the margin: the box of the time, and of the note behind it
        return int((painted[285] != painted[299]).any(axis=1).sum())

    assert footer_width("from texts") > footer_width("calibrated") + 50

"""JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

from taidpt.runtime.sinks.jsonl import JsonlSink
from taidpt.runtime.stream.moment import Moment
from tests.runtime.hostile_names import HOSTILE


def test_odd_names_survive_json_lines(hostile_moments: list[Moment], tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "o.jsonl")
    sink.write(hostile_moments[0])
    sink.close()
    (line,) = (tmp_path / "o.jsonl").read_text("utf-8").splitlines()
    assert {tag["name"] for tag in json.loads(line)["tags"]} == set(HOSTILE)

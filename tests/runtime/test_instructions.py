"""What a frame, a manifest and results cost, in instructions: no commit may raise it unseen."""

from __future__ import annotations

import json
import shutil

import pytest

from benchmarks import instructions
from tests.support import require


def test_no_case_takes_more_instructions_than_are_stored() -> None:
    require("valgrind", shutil.which("valgrind") is not None, "apt install valgrind")
    record = json.loads(instructions.STORED.read_text("utf-8"))
    here = instructions.versions()
    if record["versions"] != here:
        pytest.skip(f"counts are stored for {record['versions']}, here are {here}")
    counts = instructions.least(record["instructions"], instructions.count_in)
    assert counts.keys() == record["instructions"].keys()
    assert instructions.compare(counts, record["instructions"]) == []


def test_a_rise_above_the_bound_is_named() -> None:
    stored = {"dear": 1000, "cheap": 1000}
    lines = instructions.compare({"dear": 1031, "cheap": 1029}, stored)
    assert lines == ["dear: +3.1% instructions, the bound is +3%"]


def test_a_case_that_is_dear_in_one_layout_alone_has_not_risen() -> None:
    """It is counted again only if it is too high, and what is dear in all of them stays so."""
    layouts = []

    def count(layout: int) -> dict[str, int]:
        layouts.append(layout)
        return {"moved": 1040 if layout == 0 else 1010, "risen": 1050 + layout}

    stored = {"moved": 1000, "risen": 1000}
    found = instructions.least(stored, count)
    assert found == {"moved": 1010, "risen": 1050}
    assert len(set(layouts)) == len(layouts) > 1
    layouts.clear()
    instructions.least({"moved": 1020, "risen": 1040}, count)
    assert layouts == [0]

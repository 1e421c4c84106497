"""Whole lines on full disks and after kills."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sinks.line_file import LineFile


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

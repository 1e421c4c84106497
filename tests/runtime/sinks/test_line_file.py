"""Whole lines on full disks and after kills."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
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


@pytest.mark.parametrize("lines", [1, 3, 2000])
def test_file_emptied_in_place_holds_only_later_lines(tmp_path: Path, lines: int) -> None:
    """logrotate's copytruncate: no NUL bytes where the old lines were."""
    path = tmp_path / "out.jsonl"
    file = LineFile(path)
    for number in range(lines):
        file.write(b"old %d\n" % number)
    os.truncate(path, 0)
    assert file.is_empty
    file.write(b"new\n")
    file.close()
    assert path.read_bytes() == b"new\n"


def test_partial_line_after_copytruncate_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    file = LineFile(path)
    file.write(b"o" * 5000 + b"\n")
    os.truncate(path, 0)
    file.write(b"whole\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(InputError, match="what was written is whole"):
            file.write(b"x" * 500 + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == b"whole\n"


def test_moved_file_gets_no_line_after_reopening(tmp_path: Path) -> None:
    path, moved = tmp_path / "out.jsonl", tmp_path / "out.jsonl.1"
    file = LineFile(path)
    file.write(b"one\n")
    file.reopen()  # nothing was moved
    file.write(b"two\n")
    path.rename(moved)
    file.write(b"three\n")
    file.reopen()
    file.write(b"four\n")
    file.close()
    assert moved.read_bytes() == b"one\ntwo\nthree\n"
    assert path.read_bytes() == b"four\n"


@pytest.mark.parametrize("append", [False, True])
def test_second_writer_is_refused_and_costs_no_line(tmp_path: Path, append: bool) -> None:
    path, link = tmp_path / "out.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(path)
    file = LineFile(path)
    file.write(b"one\n")
    for name in (path, link):
        with pytest.raises(InputError, match="another output or process writes to it"):
            LineFile(name, append)
    code = f"from taidpt.runtime.sinks.line_file import LineFile; LineFile({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert b"another output or process writes to it" in done.stderr
    file.write(b"two\n")
    file.close()
    assert path.read_bytes() == b"one\ntwo\n"
    LineFile(path, append=True).close()


def test_pipes_and_devices_have_no_lock_and_no_length(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    files = [LineFile(fifo), LineFile("/dev/null"), LineFile("/dev/null")]
    for file in files:
        assert not file.is_empty
        file.write(b"line\n")
        file.reopen()
        file.write(b"line\n")
    assert os.read(reader, 100) == b"line\nline\n"
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        files[0].write(b"line\n")

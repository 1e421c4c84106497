"""Atomic writes: what a killed writer leaves, and what a running one keeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.storage import atomic
from taidpt.runtime.storage.atomic import write_atomically
from tests.runtime.tiny import TinySpec

# Writes forever; the parent kills it in the middle of a write, before the file is complete.
STUCK = """
import os, signal, sys
from pathlib import Path
from taidpt.runtime.storage import atomic
real = os.fsync
def stop(descriptor):
    real(descriptor)
    print("half", flush=True)
    signal.pause()
os.fsync = stop
atomic.write_atomically(Path(sys.argv[1]), b"new")
"""


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process lists a folder once; each test stands for a new process."""
    monkeypatch.setattr(atomic, "_LEFTOVERS", {})


def start_stuck_writer(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STUCK, str(path)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    return writer


def save_bank(path: Path) -> None:
    TinySpec().bank().save(path)


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("site.bank", save_bank),
        ("state.json", lambda path: write_atomically(path, b"{}")),
        ("a\nb.tmp-00000000", lambda path: write_atomically(path, b"{}")),
    ],
)
def test_the_next_writer_removes_what_a_killed_one_left(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    path = tmp_path / name
    write(path)
    before = path.read_bytes()
    writer = start_stuck_writer(path)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert len(hidden(tmp_path)) == 1
    assert path.read_bytes() == before
    (tmp_path / ".other.bank.tmp-0123abcd").write_bytes(b"")  # of another name
    atomic._LEFTOVERS.clear()
    write(path)
    assert hidden(tmp_path) == [".other.bank.tmp-0123abcd"]


def test_a_running_writer_keeps_its_temporary(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    writer = start_stuck_writer(path)
    write_atomically(path, b"mine")
    assert len(hidden(tmp_path)) == 1
    assert path.read_bytes() == b"mine"
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()


def test_a_writer_whose_temporary_was_removed_takes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking its temporary, another writer may take it for a leftover."""
    locks = iter([False, True])
    real = atomic.lock_file
    monkeypatch.setattr(atomic, "lock_file", lambda fd, wait: next(locks, True) and real(fd, wait))
    path = tmp_path / "state.json"
    write_atomically(path, b"whole")
    assert path.read_bytes() == b"whole"


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "site.bank"
    save_bank(path)
    before = ClassBank.load(path).names

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert hidden(tmp_path) == []
    assert ClassBank.load(path).names == before

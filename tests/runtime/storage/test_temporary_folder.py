"""Temporary folders: gone at the end, and after a kill with the next process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taidpt.runtime.storage.temporary_folder import TemporaryFolder

PROCESS = """
import sys, time
from pathlib import Path
from taidpt.runtime.storage.temporary_folder import TemporaryFolder
folder = TemporaryFolder(Path(sys.argv[1]), "work-")
(folder.path / "file").write_text("x")
print(folder.path, flush=True)
if sys.argv[2] == "wait":
    time.sleep(60)
"""


def start(parent: Path, how: str) -> tuple[subprocess.Popen[str], Path]:
    command = [sys.executable, "-c", PROCESS, str(parent), how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.mark.skipif(sys.platform == "win32", reason="no folder locks")
def test_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    killed, left = start(tmp_path, "wait")
    living, kept = start(tmp_path, "wait")
    other = tmp_path / "other"
    other.mkdir()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert (left / "file").exists()
    with TemporaryFolder(tmp_path, "work-", 0o700) as folder:
        assert sorted(tmp_path.iterdir()) == sorted([other, kept, folder.path])
        assert folder.path.stat().st_mode & 0o777 == 0o700
    living.kill()
    living.wait()
    assert sorted(tmp_path.iterdir()) == [other, kept]


def test_folder_that_nobody_closes_ends_with_its_process(tmp_path: Path) -> None:
    process, path = start(tmp_path, "end")
    assert process.wait() == 0
    assert not path.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_child_leaves_the_folder_to_its_parent(tmp_path: Path) -> None:
    folder = TemporaryFolder(tmp_path, "work-")
    child = os.fork()
    if not child:
        folder.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert folder.path.is_dir()
    folder.close()
    assert not any(tmp_path.iterdir())

"""Long work shows itself on a terminal and nowhere else; Ctrl-C in the middle changes nothing."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.taidpt.calibration.simulator import Size, simulate

COMMAND = [sys.executable, "-m", "taidpt", "calibrate"]
ROWS_COLUMNS = (24, 100, 0, 0)

Done = tuple[int, str]


def on_a_terminal(
    arguments: list[str], look: Callable[[subprocess.Popen[bytes], str], None]
) -> Done:
    """Run with standard error on a terminal; `look` sees all that it showed whenever there is more.

    Returns:
        The exit code, and what the terminal was sent.
    """
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", *ROWS_COLUMNS))
    process = subprocess.Popen(COMMAND + arguments, stdout=subprocess.DEVNULL, stderr=writer)
    os.close(writer)
    shown = b""
    while True:
        try:
            more = os.read(reader, 4096)
        except OSError:  # Linux' way to say that nobody has the terminal open any more
            more = b""
        if not more:
            break
        shown += more
        look(process, shown.decode(errors="replace"))
    os.close(reader)
    return process.wait(timeout=60), shown.decode()


def test_a_matrix_tells_a_terminal_and_no_pipe(tmp_path: Path) -> None:
    simulate("shifted", 9, Size(300, 5)).save(tmp_path / "scores.npz")
    arguments = ["--scores", str(tmp_path / "scores.npz"), "--judge"]
    code, shown = on_a_terminal(arguments, lambda process, shown: None)
    assert code == 0
    assert "calibrating 5 tags on 300 frames" in shown
    assert "comparing with thresholds chosen with labels" in shown
    piped = subprocess.run(COMMAND + arguments, capture_output=True, check=True)
    assert piped.stderr == b""
    assert b"\r" not in piped.stdout


def test_an_interrupt_while_frames_are_scored_changes_nothing(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "scene.taidpt", TinySpec(bank_as="input"))
    TinySpec().bank().save(tmp_path / "site.bank")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "one.png")
    for index in range(4000):
        (pictures / f"{index}.png").symlink_to(tmp_path / "one.png")
    kept = {path: path.read_bytes() for path in (*bundle.iterdir(), tmp_path / "site.bank")}
    sent: list[int] = []

    def interrupt(process: subprocess.Popen[bytes], shown: str) -> None:
        if "scoring" in shown and not sent:
            sent.append(signal.SIGINT)
            process.send_signal(signal.SIGINT)

    for bank in ([], ["--bank", str(tmp_path / "site.bank")]):
        sent.clear()
        code, shown = on_a_terminal([str(bundle), "--frames", str(pictures), *bank], interrupt)
        assert code == 130
        assert "interrupted" in shown
        assert "Traceback" not in shown
    assert {path: path.read_bytes() for path in kept} == kept
    assert {path.name for path in tmp_path.iterdir()} == {
        *("scene.taidpt", "site.bank", "one.png", "pictures")
    }

"""RTSP against a real server (GStreamer's), stopped and started again."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.address import parse_address
from taidpt.runtime.sources.base import Frame, SourceOptions
from taidpt.runtime.sources.live_stream import LiveSource, ReconnectPolicy
from tests.runtime.sources.test_live_stream import free_port
from tests.runtime.tiny import NAMES, TinySpec, tiny_bundle
from tests.support import require

PYTHON = "/usr/bin/python3"  # the system's, which Debian's python3-gi is for
PROBE = (
    "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0');"
    "from gi.repository import Gst, GstRtspServer; Gst.init(None);"
    "assert Gst.ElementFactory.find('x264enc') and Gst.ElementFactory.find('rtph264pay')"
)
QUICK = ReconnectPolicy(first_s=0.1, longest_s=0.3, timeout_s=3.0)


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    try:
        done = subprocess.run([PYTHON, "-c", PROBE], capture_output=True, check=False, timeout=60)
        present = done.returncode == 0
    except OSError:
        present = False
    packages = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-ugly"
    require("rtsp", present, f"no RTSP server; apt install {packages}")


@contextlib.contextmanager
def rtsp_server(port: int, *credentials: str) -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).parent / "rtsp_server.py"
    child = subprocess.Popen(
        [PYTHON, str(script), str(port), *credentials],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.wait()


def open_files() -> int:
    gc.collect()  # an earlier test's own, which would close in between
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_camera_that_goes_and_comes_back_is_seen_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    frames: list[Frame] = []
    threads, files = threading.active_count(), open_files()
    with caplog.at_level(logging.WARNING, "taidpt.runtime"):
        with rtsp_server(port):
            source = LiveSource(
                parse_address(f"rtsp://127.0.0.1:{port}/cam"), SourceOptions(), QUICK
            )
            numbered = iter(source)
            frames.extend(itertools.islice(numbered, 25))
        for restart in (1, 2):
            with rtsp_server(port):
                wanted = len(frames) + 25
                while len(frames) < wanted or source.reconnects < restart:
                    frames.append(next(numbered))
        source.close()
        assert list(numbered) == []
    assert source.reconnects >= 2
    assert {frame.image.shape for frame in frames} == {(120, 160, 3)}
    assert [frame.index for frame in frames] == list(range(len(frames)))
    times = np.array([frame.time_s or 0.0 for frame in frames])
    assert (np.diff(times) >= 0).all()
    assert times[-1] < 120
    assert np.median(np.diff(times)) == pytest.approx(0.04, abs=0.01)
    assert "lost (" in caplog.text
    assert threading.active_count() == threads
    assert open_files() <= files  # one that an earlier test left may be closed meanwhile


def test_a_password_opens_the_camera_and_is_told_to_nobody(
    bundle_path: Path, tmp_path: Path
) -> None:
    port, events, out = free_port(), tmp_path / "events.jsonl", tmp_path / "frames.jsonl"
    report, state = tmp_path / "report.html", tmp_path / "state.json"
    with rtsp_server(port, "guard", "s3cret"):
        wrong = f"rtsp://guard:hunter2@127.0.0.1:{port}/cam"
        with pytest.raises(InputError, match=r"rtsp://\*\*\*@127") as caught:
            LiveSource(parse_address(wrong), SourceOptions(), QUICK)
        assert "hunter2" not in str(caught.value)
        right = f"rtsp://guard:s3cret@127.0.0.1:{port}/cam"
        command = [sys.executable, "-m", "taidpt", "tag", str(bundle_path), right]
        outputs = ["--jsonl", out, "--events", events, "--report", report, "--state", state]
        child = subprocess.Popen(
            [*command, *map(str, outputs)], stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        deadline = time.monotonic() + 60
        while not (out.exists() and out.stat().st_size > 3000):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGTERM)
        said = b"".join(child.communicate(timeout=30))
    assert child.returncode == 0, said
    first = json.loads(out.read_text("utf-8").splitlines()[0])
    assert first["source"] == f"rtsp://***@127.0.0.1:{port}/cam"
    written = said + b"".join(path.read_bytes() for path in (out, events, report, state))
    assert b"s3cret" not in written
    assert b"guard" not in written


def test_a_kill_costs_a_line_and_a_restart_goes_on(tmp_path: Path) -> None:
    """All tags are on all the time, so a second "on" would be one told twice."""
    bundle = tiny_bundle(tmp_path / "on.taidpt", TinySpec(thresholds=(-100.0,)))
    port, state = free_port(), tmp_path / "state.json"
    frames, events = tmp_path / "frames.jsonl", tmp_path / "events.jsonl"
    command = [sys.executable, "-m", "taidpt", "tag", str(bundle), f"rtsp://127.0.0.1:{port}/cam"]
    outputs = ["--jsonl", frames, "--events", events, "--state", state, "--min-on", "0"]

    def run_until(lines: int, end: signal.Signals) -> int:
        child = subprocess.Popen([*command, *map(str, outputs)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not (state.exists() and frames.read_bytes().count(b"\n") >= lines):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(end)
        return child.wait(30)

    with rtsp_server(port):
        assert run_until(40, signal.SIGKILL) == -signal.SIGKILL
        killed = frames.read_text("utf-8").rpartition("\n")[0].splitlines()
        assert all(json.loads(line)["schema"] == "taidpt-frame/1" for line in killed)
        frames.write_text("\n".join(killed) + '\n{"schema": "ta', "utf-8")
        assert run_until(len(killed) + 30, signal.SIGTERM) == 0
    records = [json.loads(line) for line in frames.read_text("utf-8").splitlines()]
    assert len(records) >= len(killed) + 30
    told = [json.loads(line) for line in events.read_text("utf-8").splitlines()]
    assert sorted(event["tag"] for event in told) == sorted(NAMES)
    assert {event["kind"] for event in told} == {"on"}
    assert set(records[-1]["on"]) == set(NAMES)

"""Streams that break: reconnected over a real loopback server, on a clock that never falls."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.address import parse_address
from taidpt.runtime.sources.base import Frame, SourceOptions
from taidpt.runtime.sources.live_stream import LiveClock, LiveSource, ReconnectPolicy
from taidpt.runtime.sources.open import open_source
from taidpt.runtime.sources.video_file import VideoSource
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.videos import colour_video

QUICK = ReconnectPolicy(first_s=0.1, longest_s=0.3, timeout_s=2.0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(port: int, seconds: float, colour: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    script = Path(__file__).parent / "server.py"
    command = [sys.executable, str(script), str(port), str(seconds), str(colour)]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def connect(port: int, policy: ReconnectPolicy = QUICK) -> LiveSource:
    """The server needs a moment to listen."""
    for _ in range(200):
        try:
            return LiveSource(parse_address(f"tcp://127.0.0.1:{port}"), SourceOptions(), policy)
        except InputError:
            time.sleep(0.1)
    raise AssertionError("the test's server never listened")


def test_a_stream_that_breaks_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    frames: list[Frame] = []
    with caplog.at_level(logging.WARNING, "taidpt.runtime"):
        with server(port, 60) as first:
            source = connect(port)
            numbered = iter(source)
            frames.extend(next(numbered) for _ in range(20))
            first.kill()
            first.wait()
        with server(port, 60, colour=100):
            while source.reconnects == 0 or len(frames) < 60:
                frames.append(next(numbered))
            source.close()
    assert source.reconnects >= 1
    assert [frame.index for frame in frames] == list(range(len(frames)))
    times = [frame.time_s or 0.0 for frame in frames]
    assert times == sorted(times)
    assert times[-1] < 60
    assert np.diff(times)[:15].max() < 0.5
    assert "lost (" in caplog.text
    assert "open again" in caplog.text


def test_a_stream_that_stays_away_ends_when_told_to() -> None:
    port = free_port()
    policy = ReconnectPolicy(first_s=0.05, longest_s=0.1, timeout_s=1.0, give_up_s=0.5)
    with server(port, 60) as child:
        source = connect(port, policy)
        numbered = iter(source)
        next(numbered)
        child.kill()
        child.wait()
        with pytest.raises(InputError, match=r"no frame for \d+ s"):
            for _ in numbered:
                pass


def test_threads_end_with_the_stream(tagger: Tagger) -> None:
    before = threading.active_count()
    port = free_port()
    with server(port, 60):
        with tagger.stream(connect(port)) as stream:
            moments = [moment for moment, _ in zip(stream, range(10), strict=False)]
        assert len(moments) == 10
        deadline = time.monotonic() + 10
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.05)
    assert threading.active_count() == before


def test_a_slow_tagger_drops_the_oldest_frames(tagger: Tagger) -> None:
    port = free_port()
    with server(port, 60), tagger.stream(connect(port)) as stream:
        indexes = []
        for moment in stream:
            indexes.append(moment.frame.index)
            time.sleep(0.2)
            if len(indexes) == 12:
                break
        assert stream.dropped > 5
    assert indexes == sorted(indexes)
    assert indexes[-1] > 20


def test_the_wrong_address_fails_at_once_and_hides_the_password() -> None:
    url = f"rtsp://admin:hunter2@127.0.0.1:{free_port()}/cam"
    with pytest.raises(InputError, match=r"rtsp://\*\*\*@127.*cannot be opened") as caught:
        open_source(url)
    assert "hunter2" not in str(caught.value)
    assert "admin" not in str(caught.value)
    with pytest.raises(InputError, match="unknown scheme"):
        open_source("gopher://user:hunter2@x/1")


@contextlib.contextmanager
def web(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """A web server on the loopback address; its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server_:
        thread = threading.Thread(target=server_.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server_.server_port}"
        finally:
            server_.shutdown()
            thread.join()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("name", ["clip.mp4", "clip.ts", "clip.mkv", "clip.flv"])
def test_a_file_on_a_server_is_a_video_that_ends(tmp_path: Path, name: str) -> None:
    colour_video(tmp_path / name, 40)
    with web(partial(QuietFiles, directory=str(tmp_path))) as url:
        source = open_source(f"{url}/{name}")
        assert isinstance(source, VideoSource)
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(40))
    assert frames[-1].time_s == pytest.approx(39 / 25, abs=1e-2)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_picture_on_a_server_is_one_picture(tmp_path: Path, form: str) -> None:
    Image.new("RGB", (32, 24), (200, 30, 30)).save(tmp_path / "picture", form)
    with web(partial(QuietFiles, directory=str(tmp_path))) as url:
        (frame,) = list(open_source(f"{url}/picture"))
    assert (frame.time_s, frame.image.shape) == (None, (24, 32, 3))
    assert np.abs(frame.image[12, 16].astype(int) - (200, 30, 30)).max() < 12


class Pictures(BaseHTTPRequestHandler):
    """Ten JPEG pictures a second as multipart/x-mixed-replace, which has no times."""

    def log_message(self, *arguments: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        """Send pictures until the client goes."""
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        picture = io.BytesIO()
        Image.new("RGB", (32, 24)).save(picture, "JPEG")
        head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {picture.tell()}\r\n\r\n"
        with contextlib.suppress(OSError):
            for _ in range(600):
                self.wfile.write(head.encode() + picture.getvalue() + b"\r\n")
                time.sleep(0.1)


def test_pictures_without_times_follow_the_wall_clock() -> None:
    """FFmpeg invents times of 25 pictures a second, at which 30 pictures would take 1.2 s."""
    with web(Pictures) as url, open_source(f"{url}/live.mjpg") as source:
        assert source.live
        frames = iter(source)
        next(frames)
        start_s = time.monotonic()
        for _ in range(30):
            frame = next(frames)
        elapsed_s = time.monotonic() - start_s
    assert frame.time_s == pytest.approx(elapsed_s, abs=1.0)
    assert elapsed_s > 2.5


def test_sigterm_ends_a_running_stream_quickly(bundle_path: Path, tmp_path: Path) -> None:
    port = free_port()
    out = tmp_path / "out.jsonl"
    with server(port, 60):
        time.sleep(1.0)
        command = [sys.executable, "-m", "taidpt", "tag", str(bundle_path)]
        url = f"tcp://127.0.0.1:{port}"
        child = subprocess.Popen(
            [*command, url, "--jsonl", str(out)], stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 40
        while not (out.exists() and out.stat().st_size > 1000) and time.monotonic() < deadline:
            time.sleep(0.05)
        child.terminate()
        _, errors = child.communicate(timeout=20)
    assert child.returncode == 0, errors
    assert out.read_text().endswith("\n")


finite = st.floats(-1e6, 1e6, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.none() | finite, st.floats(0, 20), st.booleans()), max_size=30))
def test_the_clock_never_runs_back_and_stays_near_the_wall_clock(
    steps: list[tuple[float | None, float, bool]],
) -> None:
    clock, wall, last = LiveClock(), 100.0, 0.0
    first: float | None = None
    for stream_s, pause_s, reconnects in steps:
        wall += pause_s
        first = wall if first is None else first
        if reconnects:
            clock.restart()
        now = clock.time_of(stream_s, wall)
        assert now >= last
        assert abs(now - (wall - first)) <= 2.0 + 1e-6
        last = now


def test_the_clock_follows_the_stream_and_survives_jumps() -> None:
    clock = LiveClock()
    on_time = [(10.0, 0.0), (10.04, 0.04), (10.08, 0.08), (9000.0, 0.12), (9000.04, 0.16)]
    assert [clock.time_of(t, w) for t, w in on_time] == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.16])
    assert clock.time_of(5.0, 0.26) == pytest.approx(0.26)
    clock.restart()
    assert clock.time_of(0.0, 10.26) == pytest.approx(10.26)


def test_the_clock_takes_jitter_from_the_stream_and_not_from_the_network() -> None:
    """Frames of 25 a second arrive four at a time."""
    clock = LiveClock()
    times = [clock.time_of(index / 25, index // 4 * 4 / 25) for index in range(100)]
    assert np.diff(times) == pytest.approx(np.full(99, 0.04), abs=1e-3)


def test_reconnections_and_wrong_rates_do_not_add_up() -> None:
    """A server that sends its last 3.2 seconds at once on connecting, and one at a fifth speed."""
    clock, wall = LiveClock(), 0.0
    for _ in range(20):
        clock.restart()
        for index in range(100):
            wall += 0.0 if index < 80 else 0.04
            last = clock.time_of(index * 0.04, wall)
    assert last == pytest.approx(wall, abs=2.0)
    for step_s in (0.04, 1.0):
        clock = LiveClock()
        for index in range(1000):
            last = clock.time_of(index * step_s, index * 0.2)
        assert last == pytest.approx(999 * 0.2, abs=2.0)

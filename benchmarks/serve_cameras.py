"""Eight cameras on one engine, and what serving costs beside `taidpt tag`: two processes, in turns.

    python benchmarks/serve_cameras.py BUNDLE [--cameras 8] [--fps 5] [--seconds 40] [--burst 1]

Makes a 720p video, offers it in real time as so many network streams from this machine, and lets
`taidpt serve` (no viewer) and `taidpt tag` tag all of them, one after the other. Prints frames a
second and CPU seconds per tagged frame of each, and the ratio of the two. With `--burst 4` the
frames come four at once, as congested networks deliver them.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

TICKS = os.sysconf("SC_CLK_TCK")
WIDTH, HEIGHT = 1280, 720
# Until every camera runs, in seconds; the video is as much longer than the measurement.
MOST_START_S = 90


def make_video(path: Path, fps: int, seconds: int) -> list[bytes]:
    """Smooth noise that drifts, as MPEG-TS; the bytes of each frame."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (HEIGHT // 40, WIDTH // 40 + seconds * fps, 3), np.uint8)
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "veryfast", "g": str(fps)}
        for index in range(seconds * fps):
            part = coarse[:, index : index + WIDTH // 40]
            frame = av.VideoFrame.from_ndarray(np.kron(part, np.ones((40, 40, 1), np.uint8)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return split_frames(path.read_bytes())


def split_frames(data: bytes) -> list[bytes]:
    """The packets of MPEG-TS by frame: a new one begins where a packet of the video says so."""
    frames = [b""]
    for at in range(0, len(data), 188):
        packet = data[at : at + 188]
        is_video = (packet[1] & 0x1F) << 8 | packet[2] == 0x100
        if is_video and packet[1] & 0x40:
            frames.append(b"")
        frames[-1] += packet
    return [frames[0] + frames[1], *frames[2:]]


class _Camera(http.server.BaseHTTPRequestHandler):
    """Sends the video at its own speed."""

    frames: Sequence[bytes] = ()
    fps = burst = 1

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            for index, frame in enumerate(self.frames, 1):
                if index % self.burst == 0:
                    time.sleep(max(begun + index / self.fps - time.monotonic(), 0.0))
                self.wfile.write(frame)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def cameras(given: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
    seconds = int(given.seconds) + MOST_START_S
    _Camera.frames = make_video(folder / "camera.ts", given.fps, seconds)
    _Camera.fps, _Camera.burst = given.fps, given.burst
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield [
            f"http://127.0.0.1:{server.server_port}/{number}.ts" for number in range(given.cameras)
        ]
    finally:
        server.shutdown()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextlib.contextmanager
def process(command: list[str]) -> Iterator[int]:
    """A child, ended by SIGTERM; gives its id."""
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            print("  did not end within 30 s of SIGTERM", flush=True)
            child.kill()


def measure(
    command: list[str], counts: Callable[[], list[int]], cameras: int, seconds: float
) -> dict[str, float]:
    """Frames a second and CPU milliseconds a frame, once every camera runs.

    Args:
        command: starts the process.
        counts: frames tagged so far, of each camera or of all together.
    """
    with process(command) as pid:
        end = time.monotonic() + MOST_START_S
        while sum(counts()) < 5 * cameras or min(counts()) < 2:
            if time.monotonic() > end:
                raise SystemExit(f"not every camera ran within {MOST_START_S} s: {counts()}")
            time.sleep(1)
        first, cpu, begun = counts(), cpu_s(pid), time.monotonic()
        time.sleep(seconds)
        last, used, took = counts(), cpu_s(pid) - cpu, time.monotonic() - begun
    each = [after - before for before, after in zip(first, last, strict=True)]
    if len(each) > 1:
        print("  frames of each camera:", *each, flush=True)
    return {"fps": sum(each) / took, "cpu_ms": used / sum(each) * 1e3, "cores": used / took}


def run_serve(
    bundle: str, sources: list[str], fps: int, seconds: float, folder: Path
) -> dict[str, float]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "taidpt", "serve", bundle, *sources, "--port", str(port)]
    command += ["--data", str(folder / "data"), "--max-fps", str(fps), "--threads", "1"]

    def counts() -> list[int]:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{port}/v1/cameras"
            with urllib.request.urlopen(url, timeout=20) as answer:
                return [camera["tagged"] for camera in json.load(answer)["cameras"]]
        return [0]

    return measure(command, counts, len(sources), seconds)


def run_tag(
    bundle: str, sources: list[str], fps: int, seconds: float, folder: Path
) -> dict[str, float]:
    target = folder / "tags.csv"
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "taidpt", "tag", bundle, *sources, "--max-fps", str(fps)]
    command += ["--batch", str(min(len(sources), 8)), "--threads", "1", "--csv", str(target)]

    def counts() -> list[int]:
        return [target.read_bytes().count(b"\n") if target.exists() else 0]

    return measure(command, counts, len(sources), seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--fps", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--burst", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with cameras(given, folder) as sources:
            ratios = []
            for _ in range(given.rounds):
                options = given.bundle, sources, given.fps, given.seconds, folder
                tag, serve = run_tag(*options), run_serve(*options)
                ratios.append(serve["cpu_ms"] / tag["cpu_ms"])
                for name, found in (("tag", tag), ("serve", serve)):
                    print(
                        f"{name}: {found['fps']:.1f} frames/s, {found['cpu_ms']:.2f} ms of CPU a "
                        f"frame, {found['cores']:.2f} cores",
                        flush=True,
                    )
            load = os.getloadavg()[0]
            print(
                f"serve / tag: {np.median(ratios):.3f} (median of {len(ratios)}); load {load:.1f}"
            )


if __name__ == "__main__":
    main()

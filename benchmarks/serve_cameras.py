"""Eight cameras on one engine, and what serving costs beside `taidpt tag` of the same sources.

    python benchmarks/serve_cameras.py BUNDLE [--cameras 8] [--fps 5] [--seconds 40] [--burst 1]

Makes a 720p video and offers it in real time as so many network streams from this machine. Each
round lets `taidpt serve` (no viewer) tag all of them alone, for frames a second, and then beside
`taidpt tag`, for the CPU seconds of each per tagged frame: what else the machine does meanwhile
slows both alike. With `--burst 4` the frames come four at once, as congested networks deliver them.
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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Program:
    """A tagging process.

    Attributes:
        name: what is printed.
        command: starts it.
        counts: frames tagged so far, of each camera or of all together.
    """

    name: str
    command: list[str]
    counts: Callable[[], list[int]]


@dataclass(frozen=True)
class Usage:
    """What a program did: frames of each camera, CPU seconds, seconds."""

    frames: list[int]
    cpu_s: float
    took_s: float

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds a tagged frame."""
        return self.cpu_s / sum(self.frames) * 1e3

    def __str__(self) -> str:
        rate, cores = sum(self.frames) / self.took_s, self.cpu_s / self.took_s
        each = f"; of each camera {self.frames}" if len(self.frames) > 1 else ""
        return f"{rate:.1f} frames/s, {self.cpu_ms:.2f} ms of CPU a frame, {cores:.2f} cores{each}"


def measure(programs: Sequence[Program], cameras: int, seconds: float) -> list[Usage]:
    """Run programs side by side, and measure once every camera runs in each."""
    with contextlib.ExitStack() as stack:
        pids = [stack.enter_context(process(program.command)) for program in programs]
        end = time.monotonic() + MOST_START_S
        for program in programs:
            while sum(program.counts()) < 5 * cameras or min(program.counts()) < 2:
                if time.monotonic() > end:
                    raise SystemExit(f"{program.name}: not every camera ran in {MOST_START_S} s")
                time.sleep(1)
        first = [_now(*pair) for pair in zip(programs, pids, strict=True)]
        time.sleep(seconds)
        last = [_now(*pair) for pair in zip(programs, pids, strict=True)]
    return [
        Usage(
            [after - before for before, after in zip(a[0], b[0], strict=True)],
            b[1] - a[1],
            b[2] - a[2],
        )
        for a, b in zip(first, last, strict=True)
    ]


def _now(program: Program, pid: int) -> tuple[list[int], float, float]:
    return program.counts(), cpu_s(pid), time.monotonic()


def serve_program(given: argparse.Namespace, sources: list[str], folder: Path) -> Program:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "taidpt", "serve", given.bundle, *sources, "--port", str(port)]
    command += ["--data", str(folder / "data"), "--max-fps", str(given.fps), "--threads", "1"]

    def counts() -> list[int]:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{port}/v1/cameras"
            with urllib.request.urlopen(url, timeout=20) as answer:
                return [camera["tagged"] for camera in json.load(answer)["cameras"]]
        return [0]

    return Program("serve", command, counts)


def tag_program(given: argparse.Namespace, sources: list[str], folder: Path) -> Program:
    target = folder / "tags.csv"
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "taidpt", "tag", given.bundle, *sources]
    command += ["--max-fps", str(given.fps), "--batch", str(min(len(sources), 8))]
    command += ["--threads", "1", "--csv", str(target)]

    def counts() -> list[int]:
        return [target.read_bytes().count(b"\n") if target.exists() else 0]

    return Program("tag", command, counts)


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
            for number in range(given.rounds):
                serve = serve_program(given, sources, folder)
                (alone,) = measure([serve], given.cameras, given.seconds)
                print(f"serve alone: {alone}", flush=True)
                pair = [tag_program(given, sources, folder), serve][:: -1 if number % 2 else 1]
                usages = measure(pair, given.cameras, given.seconds)
                found = {one.name: usage for one, usage in zip(pair, usages, strict=True)}
                for name, usage in found.items():
                    print(f"{name} beside the other: {usage}", flush=True)
                ratios.append(found["serve"].cpu_ms / found["tag"].cpu_ms)
            load = os.getloadavg()[0]
            shown = " ".join(f"{ratio:.3f}" for ratio in ratios)
            print(f"serve / tag: {shown}, median {np.median(ratios):.3f}; load {load:.1f}")


if __name__ == "__main__":
    main()

"""Every example of the runtime runs as its first lines say."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime.test_live import free_port, server
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.support import REPOSITORY


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lively")
    return tiny_bundle(folder / "lively.taidpt", TinySpec(thresholds=(1.0,)))


def example(name: str, *arguments: object) -> str:
    command = [sys.executable, str(REPOSITORY / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_until_bound(port: int) -> None:
    """Whether a port is taken shows without connecting, which would be the server's one client."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return
        time.sleep(0.1)
    raise AssertionError("the test's server never listened")


def test_tag_video(lively: Path, video_path: Path) -> None:
    output = example("tag_video.py", lively, video_path)
    assert re.search(r"^ +\d\.\d\d s  .+ on$", output, re.MULTILINE)
    assert re.search(r"^.+: \d\.\d to \d\.\d s$", output, re.MULTILINE)


def test_own_loop(lively: Path) -> None:
    assert len(example("own_loop.py", lively).splitlines()) == 50


def test_several_cameras(lively: Path, video_path: Path) -> None:
    output = example("several_cameras.py", lively, video_path, video_path)
    assert f"{video_path}: " in output
    assert f"{video_path} (2): " in output


def test_watch_camera(lively: Path) -> None:
    port = free_port()
    with server(port, 60):
        wait_until_bound(port)  # the example fails at once where nothing listens
        output = example("watch_camera.py", lively, f"tcp://127.0.0.1:{port}", 2)
    assert re.search(r"last frame at \d+\.\d s, \d+ frames dropped", output)


def test_where_is_it(lively: Path, tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(frame).save(tmp_path / "in.png")
    target = tmp_path / "where.png"
    output = example("where_is_it.py", lively, tmp_path / "in.png", "dog", target)
    assert output.startswith("dog: score ")
    assert Image.open(target).size == (80, 60)

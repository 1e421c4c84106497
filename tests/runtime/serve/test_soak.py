"""Two cameras at speed, viewers that come and go: nothing grows.

Frames are large, so that one that is kept out of ten is found in half a minute of stream time. It
runs in a process of its own: what other tests left in theirs, some gigabytes, comes and goes too.

TAIDPT_SOAK_S=1800 makes it half an hour of stream time.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taidpt.runtime.sites.camera import CameraSource
from taidpt.runtime.sources.base import Frame
from tests.runtime.serve.server import running
from tests.runtime.sinks.senders import wait_for
from tests.runtime.videos import colour_frame
from tests.support import REPOSITORY

_ALONE = "TAIDPT_SOAK_ALONE"
STREAM_S, FPS = float(os.environ.get("TAIDPT_SOAK_S", "30")), 5.0
# Caches fill up in the first third; then nothing may. Runs grew by −2 to 1 MiB, and by 10 with one
# frame in ten kept.
MOST_GROWTH_BYTES = 6 << 20


class FastCamera(CameraSource):
    """Gives all its frames as fast as they are taken."""

    def frames(self) -> Iterator[Frame]:
        self.status.state = "running"
        for index in range(int(STREAM_S * FPS)):
            if self._stopped.is_set():
                return
            self.status.frames += 1
            self.status.last_s = time.monotonic()
            yield Frame(colour_frame(index * 5, 480, 640), index / FPS, index, self.name)
            time.sleep(0.005)
        self._stopped.wait(60)


def test_cameras_at_speed_leave_memory_threads_and_descriptors_flat() -> None:
    if os.environ.get(_ALONE):
        pytest.skip("alone: this is the process of its own")
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-q", "-k", "in_a_process_of_its_own", __file__],
        env={**os.environ, _ALONE: "1"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "1 passed" in done.stdout


@pytest.mark.skipif(not os.environ.get(_ALONE), reason="the test above runs it")
def test_in_a_process_of_its_own(
    swappable: Path, video_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taidpt.runtime.sites.camera_group.CameraSource", FastCamera)
    source = str(video_path)
    with running(swappable, tmp_path, source, source, min_on=0.0) as server:
        cameras = list(server.site.cameras.values())

        def reach(share: float) -> tuple[int, int, int]:
            """Look with viewers until a share of the stream, then let go and count."""
            while min(camera.source.status.frames for camera in cameras) < share * STREAM_S * FPS:
                for path in ("/v1/live", "/v1/stream", "/v1/cameras/cam1/live"):
                    with server.open(path) as answer:
                        answer.readline()
                for path in ("/v1/cameras", "/metrics", "/v1/tags/scores?tag=dog", "/v1/events"):
                    assert server.ask(path).status == 200
            assert wait_for(lambda: server.ask("/v1/cameras").json["cameras"][0]["viewers"] == 0)
            assert wait_for(lambda: server.site.store.waiting == 0)
            counts = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
            return resident_bytes(), *counts

        first = reach(1 / 3)
        last = reach(1.0)
        assert last[0] - first[0] < MOST_GROWTH_BYTES
        assert last[1] <= first[1] + 1  # an encoder may be about to end
        assert last[2] <= first[2] + 2
        assert server.site.store.lost == 0
        assert server.ask("/v1/health").json["ready"]
        assert server.site.cameras["cam1"].latest.time > STREAM_S - 5


def resident_bytes() -> int:
    """Memory that is in use; what the allocator only keeps for later is given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

"""Overlays, decoded again."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sinks.overlay import OverlaySink
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.hostile_names import HOSTILE


def test_an_overlay_plays_at_the_same_times(
    hostile: Tagger, hostile_moments: list[Moment], tmp_path: Path
) -> None:
    path = tmp_path / "o.mp4"
    sink = OverlaySink(path, (16, 16), heatmap=HOSTILE[1])
    for moment in hostile_moments:
        sink.write(moment)
    sink.end_source("x", (), 4.0)
    sink.close()
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx(
        [m.time for m in hostile_moments], abs=2e-3
    )
    assert (frames[0].width, frames[0].height) == (128, 96)
    plain, painted = hostile_moments[0].frame.image, frames[0].to_ndarray(format="rgb24")
    assert np.abs(painted.astype(int) - plain)[:40, :40].mean() > 20
    with pytest.raises(InputError, match="cannot be written as a video"):
        OverlaySink(tmp_path / "no" / "o.mp4", (16, 16))


def test_an_overlay_takes_pictures_of_changing_odd_sizes(hostile: Tagger, tmp_path: Path) -> None:
    sizes = [(97, 131), (50, 41), (200, 300)]
    pictures = [np.full((*size, 3), 90, np.uint8) for size in sizes]
    sink = OverlaySink(tmp_path / "o.mkv", (16, 16))
    for moment in hostile.stream(iter(pictures)):
        sink.write(moment)
    sink.close()
    with av.open(str(tmp_path / "o.mkv")) as container:
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [(130, 96)] * 3
    assert np.diff([frame.time for frame in frames]).tolist() == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_kill_loses_less_than_a_second(
    hostile: Tagger, video_path: Path, tmp_path: Path, suffix: str
) -> None:
    """What is in the file while it is still open is what a kill leaves."""
    path, left = tmp_path / f"o{suffix}", tmp_path / f"left{suffix}"
    sink = OverlaySink(path, (16, 16))
    last_s = 0.0
    for moment in hostile.stream(video_path, every=5):
        sink.write(moment)
        last_s = moment.time or 0.0
    shutil.copy(path, left)
    sink.close()
    with av.open(str(left)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times[-1] > last_s - 1.1

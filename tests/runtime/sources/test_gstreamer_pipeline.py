"""Pipelines: those that read files drop nothing and end; others are live."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.sources.gstreamer_pipeline import launch_command
from taidpt.runtime.sources.open import list_sources, open_source
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.sources.test_video_file import encode, steps
from tests.support import require

GST = shutil.which("gst-launch-1.0") is not None
PICTURES = "video/x-raw,width=160,height=120,framerate=20/1"


@pytest.fixture(autouse=True)
def gstreamer() -> None:
    require("gstreamer", GST, "gst-launch-1.0 is not installed (apt install gstreamer1.0-tools)")


def test_a_file_in_a_pipeline_drops_no_frame_and_ends(tagger: Tagger, tmp_path: Path) -> None:
    clip = encode(tmp_path / "a b.avi", steps(40), "mjpeg")
    for pipeline in (
        f'gst:filesrc location="{clip}" ! decodebin',
        f"gst:videotestsrc num-buffers=0 ! fakesink filesrc location='{clip}' ! decodebin",
        f"gst:uridecodebin uri=file://{str(clip).replace(' ', '%20')}",
    ):
        source = open_source(pipeline)
        assert not source.live
        with tagger.stream(source) as stream:
            moments = []
            for moment in stream:
                moments.append(moment)
                time.sleep(0.01)  # a tagger that is slower than the pipeline
        assert [moment.frame.index for moment in moments] == list(range(40)), pipeline
        times = [moment.frame.time_s for moment in moments]
        assert times == pytest.approx(steps(40), abs=2e-3)
        assert stream.dropped == 0


def test_a_list_of_files_in_pipelines_starts_one_at_a_time(tmp_path: Path) -> None:
    clip = encode(tmp_path / "a.avi", steps(5), "mjpeg")
    texts = [f"gst:filesrc location={clip} ! decodebin"] * 3
    sources = list_sources(texts, SourceOptions())
    for source in sources:
        assert source.pipeline.child is None  # type: ignore[attr-defined]  # of a PipelineFile
        assert len(list(source)) == 5
        assert source.pipeline.child is None  # type: ignore[attr-defined]


def test_a_pipeline_of_frames_that_are_made_is_live() -> None:
    with open_source(f"gst:videotestsrc num-buffers=5 ! {PICTURES}") as source:
        assert source.live
        assert len(list(source)) == 5


def test_a_pipeline_gives_frames_with_its_times() -> None:
    with open_source(f"gst:videotestsrc num-buffers=30 pattern=red ! {PICTURES}") as source:
        frames = list(source)
    assert len(frames) == 30
    assert frames[0].image.shape == (120, 160, 3)
    assert np.abs(frames[9].image.astype(int) - (254, 0, 0)).max() < 12


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("gst:nosuchthing", r'cannot be opened: .*no element "nosuchthing"'),
        ("gst:filesrc location=/none.avi ! decodebin", "cannot be opened: .*"),
        ('gst:filesrc location="a.avi ! decodebin', "the pipeline cannot be read: No closing quot"),
    ],
)
def test_a_pipeline_that_cannot_start_is_one_line(pipeline: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        open_source(pipeline)
    assert "\n" not in str(error.value)


def test_closing_a_pipeline_ends_its_child() -> None:
    source = open_source(f"gst:videotestsrc ! {PICTURES}")
    frames = iter(source)
    next(frames)
    child = source.pipeline.child  # type: ignore[attr-defined]  # of a PipelineStream
    source.close()
    assert child.poll() is not None


def test_the_childs_command_line() -> None:
    command = launch_command('filesrc location="a b.mp4" ! decodebin !')
    assert command[:5] == ["gst-launch-1.0", "-q", "filesrc", "location=a b.mp4", "!"]
    assert command[-2:] == ["fdsink", "fd=1"]
    assert command.count("!") == 5

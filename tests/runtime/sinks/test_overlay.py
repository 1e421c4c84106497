"""Overlays, decoded again."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.painting.tag_boxes import Painter
from taidpt.runtime.sinks.overlay import OverlaySink
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.hostile_names import HOSTILE
from tests.runtime.tiny import square_input


def test_an_overlay_plays_at_the_same_times(
    hostile: Tagger, hostile_moments: list[Moment], tmp_path: Path
) -> None:
    path = tmp_path / "o.mp4"
    sink = OverlaySink(path, Painter(square_input(16), heatmap=HOSTILE[1]))
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
    plain, painted = hostile_moments[-1].frame.image, frames[-1].to_ndarray(format="rgb24")
    assert np.abs(painted.astype(int) - plain)[:40, :40].mean() > 20
    with pytest.raises(InputError, match="cannot be written as a video"):
        OverlaySink(tmp_path / "no" / "o.mp4", Painter(square_input(16)))


def test_an_overlay_takes_pictures_of_changing_odd_sizes(hostile: Tagger, tmp_path: Path) -> None:
    sizes = [(97, 131), (50, 41), (200, 300)]
    pictures = [np.full((*size, 3), 90, np.uint8) for size in sizes]
    sink = OverlaySink(tmp_path / "o.mkv", Painter(square_input(16)))
    for moment in hostile.stream(iter(pictures)):
        sink.write(moment)
    sink.close()
    with av.open(str(tmp_path / "o.mkv")) as container:
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [(130, 96)] * 3
    assert np.diff([frame.time for frame in frames]).tolist() == pytest.approx([2.0, 2.0])
    second = frames[1].to_ndarray(format="rgb24")  # 41 x 50 pixels are 79 x 96 between black bars
    assert second[60:70, :22].max() < 30  # below the boxes
    assert second[60:70, -22:].max() < 30
    assert np.abs(second[65, 30:100].astype(int) - 90).max() < 12


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_kill_loses_less_than_a_second(
    hostile: Tagger, video_path: Path, tmp_path: Path, suffix: str
) -> None:
    """What is in the file while it is still open is what a kill leaves."""
    path, left = tmp_path / f"o{suffix}", tmp_path / f"left{suffix}"
    sink = OverlaySink(path, Painter(square_input(16)))
    last_s = 0.0
    for moment in hostile.stream(video_path, every=5):
        sink.write(moment)
        last_s = moment.time or 0.0
    shutil.copy(path, left)
    sink.close()
    with av.open(str(left)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times[-1] > last_s - 1.1


def with_sound(video: Path, target: Path, codec: str, delay_s: float = 0.0) -> Path:
    """The video with a tone that begins `delay_s` after its start."""
    tone = (np.sin(np.arange(4 * 8000) / 5) * 9000).astype(np.int16)[None]
    with av.open(str(video)) as source, av.open(str(target), "w") as container:
        given = source.streams.video[0]
        picture = container.add_stream_from_template(given)
        sound = container.add_stream(codec, rate=8000, layout="mono")
        for packet in source.demux(given):
            if packet.dts is not None:
                packet.stream = picture
                container.mux(packet)
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 8000, round(delay_s * 8000)
        container.mux([*sound.encode(frame), *sound.encode()])
    return target


def packets(path: Path) -> list[tuple[float, int]]:
    """Time and size of each audio packet, on the clock of the first frame."""
    with av.open(str(path)) as container:
        video, sound = container.streams.video[0], next(iter(container.streams.audio), None)
        begin_s = float((video.start_time or 0) * video.time_base)
        if sound is None:
            return []
        return [
            (float(packet.pts * packet.time_base) - begin_s, packet.size)
            for packet in container.demux(sound)
            if packet.size
        ]


def overlay_of(tagger: Tagger, target: Path, *sources: Path) -> Path:
    sink = OverlaySink(target, Painter(square_input(16)))
    for source in sources:
        for moment in tagger.stream(source, every=5):
            sink.write(moment)
        sink.end_source(str(source), (), 3.8)
    sink.close()
    return target


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".mp4"), ("mp3", ".mkv")])
def test_sound_is_copied_at_its_times(
    hostile: Tagger, video_path: Path, tmp_path: Path, codec: str, suffix: str
) -> None:
    source = with_sound(video_path, tmp_path / "source.mkv", codec, delay_s=0.7)
    copied = packets(overlay_of(hostile, tmp_path / f"o{suffix}", source))
    given = [packet for packet in packets(source) if 0 <= packet[0] <= 3.8]
    assert [size for _, size in copied] == [size for _, size in given]
    np.testing.assert_allclose(
        [time_s for time_s, _ in copied], [time_s for time_s, _ in given], atol=2e-3
    )


def test_sound_of_the_next_file_follows(hostile: Tagger, video_path: Path, tmp_path: Path) -> None:
    """The third file is silent: its sound has another rate, and a container declares one."""
    first = with_sound(video_path, tmp_path / "a.mp4", "aac")
    third = with_sound(video_path, tmp_path / "b.mkv", "mp3")
    copied = packets(overlay_of(hostile, tmp_path / "o.mp4", first, first, third))
    own = [packet for packet in packets(first) if 0 <= packet[0] <= 3.8]
    times = [time_s for time_s, _ in copied]
    assert len(copied) == pytest.approx(2 * len(own), abs=1)
    assert times == sorted(times)
    assert 7.4 < times[-1] < 7.7


def test_sound_that_the_container_lacks_is_left_out(
    hostile: Tagger, video_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = with_sound(video_path, tmp_path / "source.mkv", "mp3")
    path = overlay_of(hostile, tmp_path / "o.m4v", source)
    assert packets(path) == []
    assert "the sound (mp3) is left out" in caplog.text
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 20

"""Streams: stages that overlap change nothing but the time."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.measuring.profile import Profile
from taidpt.runtime.sources.base import Frame, Source, SourceOptions
from taidpt.runtime.sources.combined import MergedSource
from taidpt.runtime.sources.open import open_source
from taidpt.runtime.stages import Merge, Prefetch
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.stream.stream import StreamSettings
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_video


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tagger]:
    folder = tmp_path_factory.mktemp("lively")
    path = tiny_bundle(folder / "lively.taidpt", TinySpec(thresholds=(1.0,)))
    with Tagger.load(path, device="cpu", threads=1) as tagger:
        yield tagger


def gist(moment: Moment) -> tuple[object, ...]:
    return moment.frame.index, moment.time, moment.on, moment.events


def test_overlap_and_batches_change_nothing(lively: Tagger, video_path: Path) -> None:
    plain = list(lively.stream(video_path, StreamSettings(overlap=False)))
    assert len(plain) == 100
    assert any(moment.events for moment in plain)
    for settings in (StreamSettings(), StreamSettings(batch=7), StreamSettings(batch=200)):
        moments = list(lively.stream(video_path, settings))
        assert [moment.frame.index for moment in moments] == list(range(100))
        np.testing.assert_allclose(
            [moment.result.scores for moment in moments],
            [moment.result.scores for moment in plain],
            atol=1e-6,
        )
        assert [moment.on for moment in moments] == [moment.on for moment in plain]


def test_a_moment_says_what_it_is(lively: Tagger, video_path: Path) -> None:
    with lively.stream(video_path, max_fps=5) as stream:
        moments = list(stream)
        intervals = stream.timeline()
    assert len(moments) == 20
    last = moments[-1]
    assert last.tags == last.result.tags
    assert set(last.to_dict()) == {"source", "index", "time_s", "on", "tags", "events"}
    assert repr(last).startswith("Moment(Frame(95 at 3.800 s, 128x96")
    assert intervals
    switched = [event for moment in moments for event in moment.events]
    assert len(intervals) == sum(event.kind == "on" for event in switched)


def test_the_frames_before_an_error_come_out_before_it(lively: Tagger, tmp_path: Path) -> None:
    whole = colour_video(tmp_path / "whole.mp4", movflags="faststart")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    for settings in (StreamSettings(batch=8), StreamSettings(batch=8, overlap=False)):
        seen = []
        with pytest.raises(InputError, match="truncated"):
            seen.extend(lively.stream(cut, settings))
        expected = []
        with pytest.raises(InputError, match="truncated"):
            expected.extend(open_source(cut))
        assert [m.frame.index for m in seen] == [frame.index for frame in expected]


def test_stop_drains_and_close_ends_the_threads(lively: Tagger, video_path: Path) -> None:
    before = threading.active_count()
    with lively.stream(video_path) as stream:
        seen = []
        for moment in stream:
            seen.append(moment.frame.index)
            if len(seen) == 5:
                stream.stop()
    assert 5 <= len(seen) < 20
    assert seen == list(range(len(seen)))
    assert threading.active_count() == before


def test_a_region_is_a_part_of_each_frame(video_path: Path) -> None:
    part = list(open_source(video_path, SourceOptions(roi=(40, 10, 50, 30), every=50)))
    whole = list(open_source(video_path, SourceOptions(every=50)))
    assert [frame.image.shape for frame in part] == [(30, 50, 3)] * 2
    np.testing.assert_array_equal(part[1].image, whole[1].image[10:40, 40:90])
    with pytest.raises(InputError, match="does not lie inside the frame of 128x96"):
        list(open_source(video_path, SourceOptions(roi=(100, 0, 50, 30))))
    with pytest.raises(InputError, match="roi should be x,y,width,height"):
        SourceOptions(roi=(0, 0, 0, 5))


def test_several_sources_take_turns_and_keep_their_own_events(
    lively: Tagger, tmp_path: Path
) -> None:
    paths = [colour_video(tmp_path / f"{name}.mp4", 60) for name in "ab"]
    alone = {str(path): [gist(m) for m in lively.stream(path)] for path in paths}
    merged = MergedSource([open_source(path) for path in paths])
    assert merged.total == 120
    with lively.stream(merged, StreamSettings(batch=4)) as stream:
        moments = list(stream)
        for path in paths:
            own = [gist(m) for m in moments if m.frame.source == str(path)]
            assert [entry[:3] for entry in own] == [entry[:3] for entry in alone[str(path)]]
        assert set(stream.sources) == {str(path) for path in paths}
    switches = sum(a.frame.source != b.frame.source for a, b in itertools.pairwise(moments))
    assert switches > 10


def test_a_source_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    whole = colour_video(tmp_path / "whole.mp4", movflags="faststart")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    merged = MergedSource([open_source(cut), open_source(whole)])
    seen = []
    with pytest.raises(InputError, match=r"cut\.mp4: truncated"):
        seen.extend(merged)
    assert sum(frame.source == str(whole) for frame in seen) == 100


class Clockwork(Source):
    """A live source that gives frames as fast as it can."""

    live = True

    def __init__(self, name: str, count: int) -> None:
        self.name, self._count = name, count

    def frames(self) -> Iterator[Frame]:
        for index in range(self._count):
            yield Frame(np.zeros((16, 16, 3), np.uint8), index / 25, index, self.name)
            time.sleep(0.001)


def test_several_live_sources_drop_count_and_end(lively: Tagger) -> None:
    before = threading.active_count()
    merged = MergedSource([Clockwork("a", 300), Clockwork("b", 300)])
    with lively.stream(merged, StreamSettings(batch=2)) as stream:
        seen = []
        for moment in stream:
            seen.append((moment.frame.source, moment.frame.index))
            time.sleep(0.01)
    assert stream.dropped > 100
    assert len(seen) + stream.dropped == 600
    for name in "ab":
        indexes = [index for source, index in seen if source == name]
        assert indexes == sorted(indexes)
        assert len(indexes) > 10
    assert threading.active_count() == before


def test_closing_several_sources_in_the_middle_ends_their_threads(
    lively: Tagger, video_path: Path
) -> None:
    before = threading.active_count()
    merged = MergedSource([open_source(video_path), Clockwork("b", 10**6)])
    with lively.stream(merged) as stream:
        assert len(list(itertools.islice(stream, 5))) == 5
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() == before


def test_prefetch_keeps_order_and_hands_the_error_on_last() -> None:
    def items() -> Iterator[int]:
        yield from range(50)
        raise InputError("the end")

    seen = []
    with pytest.raises(InputError, match="the end"):
        seen.extend(Prefetch(items(), 3))
    assert seen == list(range(50))


def test_prefetch_is_bounded_and_drops_only_when_told_to() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for index in range(100):
            made.append(index)
            yield index

    held = Prefetch(items(), 3)
    time.sleep(0.2)
    assert len(made) <= 5
    assert list(held) == list(range(100))
    made.clear()
    live = Prefetch(items(), 3, live=True)
    time.sleep(0.2)
    assert len(made) == 100
    assert list(live) == list(range(94, 100))
    assert live.dropped == 94


@pytest.mark.parametrize("take", [lambda live: [next(live)], lambda live: live.take_ready(1)])
def test_frames_of_a_burst_are_kept_and_none_for_longer_than_a_second(
    take: Callable[[Prefetch[int]], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network delivers several frames at once; a slow machine must not fall behind."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    live = Prefetch(iter(range(5)), 1, live=True)
    live._thread.join()
    assert take(live) == [0]
    now[0] = 0.9
    assert (take(live), live.dropped) == ([1], 0)
    now[0] = 2.0
    assert (take(live), live.dropped) == ([4], 2)


def test_a_full_prefetch_can_be_closed() -> None:
    fetcher = Prefetch(itertools.count(), 2)
    assert next(fetcher) == 0
    begun = time.monotonic()
    fetcher.close()
    assert time.monotonic() - begun < 2
    assert list(fetcher) == []


def test_merge_takes_from_whichever_is_ready() -> None:
    def slow() -> Iterator[str]:
        for _ in range(3):
            time.sleep(0.1)
            yield "slow"

    found = list(Merge([slow(), ["quick"] * 20], [True, False], lambda *_: None))
    assert found.count("quick") == 20
    assert found.count("slow") == 3
    assert found[-1] == "slow"


def test_profile_gives_percentiles(lively: Tagger, video_path: Path) -> None:
    with lively.stream(video_path, every=5) as stream:
        list(stream)
        found = stream.profile.percentiles()
    assert set(found) == {"decode", "wait", "preprocess", "inference", "post"}
    assert all(0 <= p50 <= p95 <= p99 for p50, p95, p99 in found.values())
    profile = Profile()
    for milliseconds in range(1, 101):
        profile.add("sinks", milliseconds / 1000)
    assert profile.percentiles()["sinks"] == pytest.approx((50.5, 95.05, 99.01))
    assert profile.lines()[1].split() == ["sinks", "50.50", "95.05", "99.01"]


def test_wrong_options(lively: Tagger, video_path: Path) -> None:
    with pytest.raises(InputError, match="a stream has no option 'speed'; options: batch, "):
        lively.stream(video_path, speed=3)
    with lively.stream(video_path, batch=4, smoothing_s=0.0, every=10) as stream:
        assert len(list(stream)) == 10
    with pytest.raises(InputError, match="batch should be at least 1"):
        lively.stream(video_path, batch=0)
    with pytest.raises(InputError, match="batch should be at least 1"):
        StreamSettings(batch=0)
    with pytest.raises(InputError, match="has its options already"):
        lively.stream(open_source(video_path), every=2)

"""A restart goes on: what was on stays on, and is not told twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Event, EventMachine, EventSettings, rebase_state
from taidpt.runtime.sources.base import Frame, Source
from taidpt.runtime.stream.stream import Stream, StreamSettings
from taidpt.runtime.tag.state_file import StateFile
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_frame


class Camera(Source):
    """A part of the colour video, live, its clock beginning at 0."""

    name, live, threaded = "camera", True, False

    def __init__(self, first: int, last: int) -> None:
        self._indexes = range(first, last)

    def frames(self) -> Iterator[Frame]:
        for number, index in enumerate(self._indexes):
            yield Frame(colour_frame(index), number / 25, number, self.name)


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tagger]:
    path = tmp_path_factory.mktemp("lively") / "lively.taidpt"
    with Tagger.load(tiny_bundle(path, TinySpec(thresholds=(1.0,))), device="cpu") as tagger:
        yield tagger


def run(stream: Stream) -> list[Event]:
    return [event for moment in stream for event in moment.events]


def test_a_restart_gives_the_unbroken_events(lively: Tagger, tmp_path: Path) -> None:
    settings_ = StreamSettings(overlap=False)
    whole = run(Stream(lively, Camera(0, 100), settings_))
    assert len(whole) >= 4
    for cut in (10, 63, 70, 90):
        path, wall = tmp_path / f"{cut}.json", [1000.0]
        first = Stream(lively, Camera(0, cut), settings_)
        state = StateFile(path, first, lambda wall=wall: wall[0])
        found = run(first)
        state.save()
        wall[0] += 0.04
        second = Stream(lively, Camera(cut, 100), settings_)
        StateFile(path, second, lambda wall=wall: wall[0])
        found += run(second)
        assert [(e.tag, e.kind) for e in found] == [(e.tag, e.kind) for e in whole]
        for ours, theirs in zip(found, whole, strict=True):
            assert ours.score == pytest.approx(theirs.score, abs=1e-5)
            assert ours.peak == pytest.approx(theirs.peak, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 39), st.floats(0.01, 2.0))
def test_a_rebased_state_gives_the_same_events_on_a_shifted_clock(
    seed: int, cut: int, away_s: float
) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.normal(0.75, 0.6, (40, 3))
    times = np.arange(40) * 0.1
    times[cut:] += away_s - 0.1
    choice = EventSettings(on=1.0, off=0.5, smoothing_s=0.2, min_on_s=0.25, min_off_s=0.25)
    whole = EventMachine("abc", choice).update(times, scores)
    first, second = EventMachine("abc", choice), EventMachine("abc", choice)
    found = first.update(times[:cut], scores[:cut])
    second.load_state(rebase_state(json.loads(json.dumps(first.save_state())), away_s))
    rest = second.update(times[cut:] - times[cut], scores[cut:])
    assert [(e.tag, e.kind) for e in found + rest] == [(e.tag, e.kind) for e in whole]
    shifted = [e.time_s for e in found] + [e.time_s + times[cut] for e in rest]
    assert shifted == pytest.approx([e.time_s for e in whole])


def test_damaged_state_is_named(lively: Tagger, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for text, message in [
        ("{", "damaged state"),
        ("[]", "damaged state"),
        ('{"schema": 9, "wall_s": 0, "sources": {}}', "newer taidpt"),
        ('{"schema": 1, "wall_s": 0, "sources": {"camera": {}}}', "damaged state"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=rf"state\.json: .*{message}"):
            StateFile(path, Stream(lively, Camera(0, 5), StreamSettings()))
    stream = Stream(lively, Camera(0, 5), StreamSettings())
    with pytest.raises(InputError, match="cannot be written"):
        StateFile(tmp_path / "no" / "state.json", stream).save()

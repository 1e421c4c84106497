"""Still frames: found, not tagged, checked now and then, and counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings, strategies as st

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.sources.combined import MergedSource
from taidpt.runtime.sources.pictures import ArraySource
from taidpt.runtime.stream.still_frames import FrameChange, StillFilter, change, sketch
from taidpt.runtime.stream.stream import StreamSettings
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.videos import write_video

CHANGED, STILL, SAMPLED = FrameChange.CHANGED, FrameChange.STILL, FrameChange.SAMPLED

U8 = npt.NDArray[np.uint8]


def noise(seed: int, hw: tuple[int, int] = (240, 320)) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 3, 4]))
def test_a_sketch_is_mean_colours_of_frames_of_any_size(
    height: int, width: int, count: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, count), dtype=np.uint8)
    found = sketch(image)
    lines, cells = min(48, height), min(48, width)
    assert found.shape == (lines, cells, count)
    each = width // cells
    left, row = (width - each * cells) // 2, int(0.5 * height / lines)
    first = image[row, left : left + each].astype(float).mean(axis=0)
    np.testing.assert_allclose(found[0, 0], first, atol=1e-3)


def test_noise_is_still_and_a_small_thing_is_not() -> None:
    grey = np.full((720, 1280, 3), 120.0)
    noisy = [
        np.clip(grey + np.random.default_rng(seed).normal(0, 2, grey.shape), 0, 255).astype(
            np.uint8
        )
        for seed in (0, 1)
    ]
    assert change(sketch(noisy[0]), sketch(noisy[1])) < 4
    moved = noisy[1].copy()
    moved[300:340, 400:440] = 200
    assert change(sketch(noisy[0]), sketch(moved)) > 20
    assert change(sketch(noisy[0]), sketch(noisy[1][:40])) == float("inf")


def test_slow_changes_add_up_and_some_still_frames_are_checked() -> None:
    filter_ = StillFilter(10, check_every=4)
    fade = [
        filter_.compare("a", np.full((60, 80, 3), 100 + 3 * step, np.uint8)) for step in range(8)
    ]
    assert fade == [
        CHANGED,
        *[STILL] * 3,
        CHANGED,
        *[STILL] * 3,
    ]
    filter_ = StillFilter(10, check_every=4)
    same = [filter_.compare("a", np.zeros((60, 80, 3), np.uint8)) for _ in range(11)]
    assert same == [
        CHANGED,
        *[STILL] * 4,
        SAMPLED,
        *[STILL] * 4,
        SAMPLED,
    ]
    assert filter_.compare("b", np.zeros((60, 80, 3), np.uint8)) is CHANGED
    filter_.forget()
    assert filter_.compare("a", np.zeros((60, 80, 3), np.uint8)) is CHANGED
    with pytest.raises(InputError, match="above 0 grey levels"):
        StillFilter(0)


def scenes() -> list[U8]:
    """Three scenes of 20 equal frames."""
    return [noise(index // 20) for index in range(60)]


@pytest.mark.parametrize("batch", [1, 7])
def test_a_stream_repeats_the_result_of_still_frames(tagger: Tagger, batch: int) -> None:
    plain = list(tagger.stream(scenes(), fps=25))
    stream = tagger.stream(scenes(), StreamSettings(batch=batch, skip_still=2.0), fps=25)
    moments = list(stream)
    assert [moment.still for moment in moments] == [index % 20 > 0 for index in range(60)]
    assert [moment.events for moment in moments] == [moment.events for moment in plain]
    for moment, other in zip(moments, plain, strict=True):
        np.testing.assert_allclose(moment.result.scores, other.result.scores, atol=1e-5)
    assert stream.stills is not None
    counts = stream.stills.counts
    assert (counts.frames, counts.repeated, counts.checked) == (60, 57, 0)


def test_the_check_finds_tags_that_differ(tagger: Tagger) -> None:
    """Only between the sketch's lines does the picture change, which the threshold lets pass."""
    before, after = noise(0, (480, 320)), noise(1, (480, 320))
    rows = ((np.arange(48) + 0.5) * 10).astype(int)
    after[rows] = before[rows]
    stream = tagger.stream([before, *[after] * 30], StreamSettings(skip_still=1.0), fps=25)
    moments = list(stream)
    assert stream.stills is not None
    counts = stream.stills.counts
    moved = np.abs(tagger(before).scores - tagger(after).scores).max()
    assert (counts.checked, counts.tags_compared) == (1, len(tagger.names))
    assert counts.largest_change == pytest.approx(moved, rel=1e-3)
    assert counts.tags_changed == (tagger(before).on != tagger(after).on).sum()
    np.testing.assert_allclose(moments[-1].result.scores, tagger(after).scores, atol=1e-5)


def test_each_source_has_its_own_last_frame(tagger: Tagger) -> None:
    named = [ArraySource([noise(seed)] * 10, SourceOptions(fps=25)) for seed in (0, 1)]
    stream = tagger.stream(MergedSource(named), StreamSettings(batch=4, skip_still=2.0))
    moments = list(stream)
    assert sum(not moment.still for moment in moments) == 2
    for moment in moments:
        seed = 0 if moment.frame.source == "array" else 1
        np.testing.assert_allclose(moment.result.scores, tagger(noise(seed)).scores, atol=1e-5)


def test_the_command_reports_what_it_saved(bundle_path: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "still.mp4", [noise(index // 30) for index in range(60)])
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "taidpt", "tag", str(bundle_path), str(video)]
    done = subprocess.run(
        [*command, "--skip-still", "12", "--jsonl", str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "of 60 frames were still and not tagged; in " in done.stderr
    records = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(records) == 60
    assert sum(record["still"] for record in records) > 40
    assert {record["still"] for record in records} == {True, False}

"""Boxes of tags, measured on the painted pixels."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from taidpt.runtime.bank.thresholds import Threshold
from taidpt.runtime.painting.tag_boxes import Painter
from taidpt.runtime.results import TagResult, Vocabulary
from taidpt.runtime.sources.base import Frame
from taidpt.runtime.stream.moment import Moment
from tests.runtime.tiny import square_input

# The map of each tag: a score of 0 is no chance, one of 10 is certain.
STRAIGHT = {"scores": [0.0, 10.0], "probabilities": [0.0, 1.0]}
GREEN, INK = (76, 206, 178), (255, 255, 255)
NAMES = ("dog", "cat", "car")


def moment_of(scores: list[float], on: tuple[str, ...], threshold: float = 5.0) -> Moment:
    """A grey frame with three tags of one threshold."""
    thresholds = [Threshold(threshold, threshold - 0.5, "calibrated")] * 3
    vocabulary = Vocabulary(
        NAMES, thresholds, [STRAIGHT] * 3, (2, 2), np.eye(3, 4, dtype=np.float32)
    )
    patches = np.arange(16, dtype=np.float32).reshape(4, 4) / 16
    result = TagResult(np.array(scores, np.float32), patches, None, vocabulary)
    picture = np.full((360, 640, 3), 100, np.uint8)
    return Moment(Frame(picture, 12.34, 0, "clip.mp4"), result, (), on)


def bars(image: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """First and last column of each band of rows that has ten pixels of a colour in a row."""
    hits = (image == colour).all(axis=2)
    rows = np.flatnonzero(hits.sum(axis=1) >= 10)
    bands = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []
    columns = [np.flatnonzero(hits[band].any(axis=0)) for band in bands]
    return [(int(column[0]), int(column[-1])) for column in columns]


def painted(moment: Moment, **options: object) -> npt.NDArray[np.uint8]:
    return np.asarray(Painter(square_input(8), **options).paint(moment))  # type: ignore[arg-type]


def test_bars_have_one_scale_in_every_frame() -> None:
    """The length is the probability, whatever the other tags score."""
    half = bars(painted(moment_of([5.0, 1.0, 1.0], ("dog",))), GREEN)
    whole = bars(painted(moment_of([10.0, 1.0, 1.0], ("dog",))), GREEN)
    among = bars(painted(moment_of([5.0, 10.0, 10.0], ("dog", "cat", "car"))), GREEN)
    lengths = [last - first for first, last in (half[0], whole[0], among[2])]
    assert lengths[0] / lengths[1] == pytest.approx(0.5, abs=0.02)
    assert lengths[2] == lengths[0]


@pytest.mark.parametrize("threshold", [2.0, 8.0])
def test_threshold_is_marked_at_its_place(threshold: float) -> None:
    full = bars(painted(moment_of([10.0, 1.0, 1.0], ("dog",), threshold=0.0)), GREEN)[0]
    image = painted(moment_of([10.0, 1.0, 1.0], ("dog",), threshold))
    row = np.flatnonzero((image == GREEN).all(axis=2).any(axis=1))[1]
    white = np.flatnonzero((image[row] == INK).all(axis=1))
    place = (white.mean() - full[0]) / (full[1] - full[0])
    assert place == pytest.approx(threshold / 10, abs=0.02)


def test_tags_that_are_off_are_hidden_unless_asked_for() -> None:
    moment = moment_of([9.0, 4.0, 3.0], ("dog",))
    assert len(bars(painted(moment), GREEN)) == 1
    shown = painted(moment, show_off=True)
    assert len(bars(shown, GREEN)) == 1
    assert len(bars(shown, (150, 160, 157))) == 2
    nothing = painted(moment_of([4.0, 4.0, 3.0], ()))
    assert (nothing[:300] == 100).all()
    assert (nothing[300:] != 100).any(), "the time is always there"


def test_a_tag_that_is_on_below_its_off_threshold_is_grey_and_last() -> None:
    """It has left, and its shortest time off still runs."""
    grey = (150, 160, 157)
    gone = painted(moment_of([9.0, 4.4, 1.0], ("dog", "cat")), heatmap="cat")
    assert len(bars(gone, GREEN)) == len(bars(gone, grey)) == 1
    assert (gone[150:250, 200:440] == 100).all(), "no heatmap of what has left"
    between = painted(moment_of([9.0, 4.6, 1.0], ("dog", "cat")))
    assert len(bars(between, GREEN)) == 2, "between the thresholds it is on as ever"
    order = painted(moment_of([4.4, 4.6, 1.0], ("dog", "cat")))
    green, last = (
        np.flatnonzero((order == colour).all(axis=2).any(axis=1)) for colour in (GREEN, grey)
    )
    assert green.max() < last.min()


def test_heatmap_is_painted_while_its_tag_is_on() -> None:
    on, off = moment_of([9.0, 1.0, 9.0], ("dog",)), moment_of([9.0, 1.0, 9.0], ("car",))
    assert (painted(on, heatmap="dog")[150:250, 200:440] != 100).any()
    assert (painted(off, heatmap="dog")[150:250, 200:440] == 100).all()
    footer = slice(330, 360), slice(440, 640)
    assert (painted(on, heatmap="dog")[footer] == INK).all(axis=2).any(), "its name"
    assert (painted(off, heatmap="dog")[footer] == 100).all()


def test_more_tags_than_have_room_are_counted() -> None:
    """A frame of 60 pixels has room for one box."""
    moment = moment_of([9.0, 8.0, 7.0], NAMES)
    small = Frame(np.full((60, 640, 3), 100, np.uint8), 1.0, 0, "clip.mp4")
    image = painted(dataclasses.replace(moment, frame=small))
    assert len(bars(image, GREEN)) == 1
    alone = painted(dataclasses.replace(moment, frame=small, on=("dog",)))
    widths = [int((each[-6] != 100).any(axis=1).sum()) for each in (image, alone)]
    assert widths[0] > widths[1] + 60, "the footer counts the other two"


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (20, 30), (45, 45), (47, 61)])
def test_small_frames_are_painted_or_left_alone(shape: tuple[int, int]) -> None:
    frame = Frame(np.full((*shape, 3), 100, np.uint8), 1.0, 0, "clip.mp4")
    moment = dataclasses.replace(moment_of([9.0, 8.0, 7.0], NAMES), frame=frame)
    image = painted(moment, show_off=True)
    assert image.shape == (*shape, 3)
    assert (image != 100).any() == (min(shape) >= 44)


def test_level_without_a_map_is_half_at_the_threshold_and_follows_the_gap() -> None:
    vocabulary = Vocabulary(
        ("dog", "cat"), [Threshold(2.0, 1.8, "default")] * 2, [None] * 2, (1, 1)
    )
    assert vocabulary.level(0, 2.0) == 0.5
    assert vocabulary.level(0, 2.2) == pytest.approx(1 / (1 + np.exp(-1)))
    assert vocabulary.level(0, -1e9) == 0.0
    given = vocabulary.with_threshold(2.0, 2.0)  # no gap
    assert 0.5 < given.level(0, 2.05) < given.level(0, 2.2) < 1.0

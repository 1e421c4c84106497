"""Frames saved as pictures, opened again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taidpt.runtime.errors import InputError
from taidpt.runtime.painting.tag_boxes import Painter
from taidpt.runtime.sinks.saved_frames import SavedFramesSink
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import square_input


def test_each_frame_at_which_a_tag_comes_on_is_saved(moments: list[Moment], tmp_path: Path) -> None:
    sink = SavedFramesSink(tmp_path / "frames", Painter(square_input(16)))
    for moment in moments:
        sink.write(moment)
    expected = {
        f"colours_{moment.time:07.2f}s.jpg": moment.on
        for moment in moments
        if any(event.kind == "on" for event in moment.events)
    }
    saved = {}
    for path in (tmp_path / "frames").iterdir():
        with Image.open(path) as picture:
            saved[path.name] = tuple(picture.getexif()[0x010E].split(", "))
            assert picture.size == (128, 96)
    assert saved == expected
    assert len(saved) > 1


def test_pictures_of_one_name_do_not_replace_each_other(hostile: Tagger, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(tmp_path / folder / "x.y.png")
    sink = SavedFramesSink(tmp_path / "frames", Painter(square_input(16)))
    for folder in ("a", "b", "a"):
        for moment in hostile.stream(tmp_path / folder):
            sink.write(moment)
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == [
        "x.y-2.jpg",
        "x.y.jpg",
    ]


def test_pictures_without_a_tag_are_not_saved(tagger: Tagger, tmp_path: Path) -> None:
    strict = tagger.with_threshold(99.0)
    sink = SavedFramesSink(tmp_path / "frames", Painter(square_input(16)))
    for moment in strict.stream(iter(np.zeros((2, 40, 50, 3), np.uint8))):
        sink.write(moment)
    assert list((tmp_path / "frames").iterdir()) == []


def test_names_of_streams_are_file_names_with_a_date(moments: list[Moment], tmp_path: Path) -> None:
    import dataclasses

    sink = SavedFramesSink(tmp_path / "frames", Painter(square_input(16)))
    moment = next(moment for moment in moments if moment.events and moment.on)
    frame = dataclasses.replace(moment.frame, source="rtsp://door:554/../live?x=1")
    sink.write(dataclasses.replace(moment, frame=frame))
    (path,) = (tmp_path / "frames").iterdir()
    assert path.name.startswith("rtsp_door_554_.._live_x_1_20")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "no" / "frames"):
        with pytest.raises(InputError, match="cannot be a folder for frames"):
            SavedFramesSink(place, Painter(square_input(16)))

"""The shipped files: present, small, and equal to what their builders produce."""

from __future__ import annotations

import av
import numpy as np
import pytest
import yaml

from scripts.toyworld.build_video import FRAMES_PER_SECOND, SIZE, demo_shots
from scripts.toyworld.drawing.backgrounds import TRAIN_FAMILIES
from scripts.toyworld.drawing.things import TAG_NAMES, THINGS
from taidpt.runtime.errors import InputError
from taidpt.toyworld import assets
from taidpt.toyworld.assets import load_heldout

_MIB = 2**20
FILES = [file.name for file in sorted(assets.FOLDER.iterdir())]


def test_sizes_are_within_bounds() -> None:
    assert assets.path("model.safetensors").stat().st_size <= 12 * _MIB
    assert assets.path("heldout.zip").stat().st_size <= 3 * _MIB
    assert assets.path("demo.mp4").stat().st_size <= 1 * _MIB
    assert assets.path("tuning_captions.txt").stat().st_size <= 400_000
    assert sum(assets.path(name).stat().st_size for name in FILES) <= 16 * _MIB


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(InputError, match=r"nothing\.bin is missing.*install taidpt again"):
        assets.path("nothing.bin")


def test_tags_file_lists_every_tag_and_synonym() -> None:
    entries = yaml.safe_load(assets.path("tags.yaml").read_text("utf-8"))["tags"]
    assert [entry["name"] for entry in entries] == list(TAG_NAMES)
    assert [tuple(entry.get("synonyms", ())) for entry in entries] == [t.synonyms for t in THINGS]


def test_notice_names_the_licences() -> None:
    notice = assets.path("NOTICE.txt").read_text("utf-8")
    assert "SIL Open Font License" in notice
    assert "MIT" in notice


def test_heldout_has_twenty_pictures_of_each_tag() -> None:
    images, labels, names = load_heldout()
    assert names == TAG_NAMES
    assert labels.shape == (len(images), 60)
    assert labels.sum(0).min() >= 20
    assert set(labels.sum(1).tolist()) <= {1, 2, 3, 4, 5}
    assert all(image.dtype == np.uint8 and image.shape == (160, 160, 3) for image in images)


def test_heldout_pictures_are_distinct() -> None:
    images, _, _ = load_heldout()
    assert len({image.tobytes() for image in images}) == len(images)


def test_video_has_the_length_of_its_script() -> None:
    frames = 0
    with av.open(str(assets.path("demo.mp4"))) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        for frame in container.decode(video=0):
            frames += 1
            assert (frame.width, frame.height) == (SIZE, SIZE)
    seconds = demo_shots()[-1].end_s
    assert frames == round(seconds * FRAMES_PER_SECOND)
    assert 30 <= seconds <= 45


def test_timeline_fits_the_video_and_its_tags() -> None:
    end = demo_shots()[-1].end_s
    spans = assets.timeline()
    assert len(spans) == sum(len(shot.actors) for shot in demo_shots())
    for span in spans:
        assert span["tag"] in TAG_NAMES
        assert 0 <= span["start"] < span["end"] <= end
        assert span["end"] - span["start"] >= 1.0


def test_video_uses_no_training_background() -> None:
    assert {shot.family for shot in demo_shots()}.isdisjoint(TRAIN_FAMILIES)

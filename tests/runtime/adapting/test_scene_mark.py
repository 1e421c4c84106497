"""Frames of another camera are told from another day of the same one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from taidpt.runtime.adapting.scene_mark import SceneMark
from taidpt.runtime.adapting.similarity import Features
from tests.runtime.adapting.made_scenes import made_scene, noise_scene


@pytest.mark.parametrize("seed", range(5))
def test_other_frames_of_the_scene_are_its_own_and_other_scenes_are_not(seed: int) -> None:
    _, scene, _ = made_scene(seed)
    mark = SceneMark.of(scene)
    _, later, _ = made_scene(seed, part=1)
    _, elsewhere, _ = made_scene(seed + 100)
    assert not mark.is_another(later)
    assert mark.is_another(elsewhere)
    assert mark.is_another(noise_scene())
    # a few dark frames do not widen the scene
    dark = Features(scene.whole.copy(), scene.patches)
    dark.whole[:5] = noise_scene().whole[:5]
    assert SceneMark.of(dark).is_another(elsewhere)


def test_a_mark_is_read_as_it_was_written_and_tiles_are_frames() -> None:
    _, scene, _ = made_scene(0)
    mark = SceneMark.of(scene)
    written = json.loads(json.dumps(mark.to_json()))
    read = SceneMark.from_json(written, 32)
    assert read is not None
    assert np.array_equal(read.mean, mark.mean)
    assert read.least == mark.least
    tiles = Features(scene.whole.reshape(-1, 2, 32), scene.patches)
    assert SceneMark.of(tiles).least == mark.least


@pytest.mark.parametrize("document", [None, [], {}, {"mean": ["a"] * 32, "least": 0.5}])
def test_a_bank_without_a_mark_has_none(document: object) -> None:
    assert SceneMark.from_json(document, 32) is None
    assert SceneMark.from_json({"mean": [0.1] * 31, "least": 0.5}, 32) is None

"""Scenes: fixed by their seed, true to their labels, a clear error without the font."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scripts.toyworld.drawing import scenes
from scripts.toyworld.drawing.backgrounds import (
    COLOURS,
    HELDOUT_FAMILIES,
    TRAIN_FAMILIES,
    draw_background,
)
from scripts.toyworld.drawing.scenes import SceneSettings, font_installed, render_scene
from scripts.toyworld.drawing.things import TAG_NAMES, THINGS
from taidpt.runtime.errors import MissingDependencyError
from tests.support import require


def _need_font() -> None:
    require(
        "noto-emoji",
        font_installed(),
        f"{scenes.FONT_PATH} is not there: apt-get install fonts-noto-color-emoji",
    )


def test_there_are_sixty_distinct_tags() -> None:
    assert len(TAG_NAMES) == 60
    forms = [form for thing in THINGS for form in (thing.name, *thing.synonyms)]
    assert len(set(forms)) == len(forms)


def test_no_colour_word_names_a_thing() -> None:
    named = {
        word for thing in THINGS for form in (thing.name, *thing.synonyms) for word in form.split()
    }
    # "brown bear" is the one compound with a colour in it; alone the colour names nothing.
    assert named & set(COLOURS) == {"brown"}


@pytest.mark.parametrize("size", [(96, 96), (37, 123)])
@pytest.mark.parametrize("family", TRAIN_FAMILIES + HELDOUT_FAMILIES)
def test_background_depends_on_its_generator_alone(family: str, size: tuple[int, int]) -> None:
    first, facts = draw_background(np.random.default_rng(5), size, (family,))
    second, _ = draw_background(np.random.default_rng(5), size, (family,))
    assert facts.family == family
    assert first.shape == (*size, 3)
    assert np.isfinite(first).all()
    assert first.min() >= 0
    assert first.max() <= 255
    np.testing.assert_array_equal(first, second)


def test_heldout_and_training_backgrounds_are_disjoint() -> None:
    assert set(HELDOUT_FAMILIES).isdisjoint(TRAIN_FAMILIES)
    assert set(SceneSettings().families) == set(TRAIN_FAMILIES)


def test_pixels_depend_on_the_seed() -> None:
    _need_font()
    first, again, other = render_scene((9, 1)), render_scene((9, 1)), render_scene((9, 2))
    np.testing.assert_array_equal(first.image, again.image)
    assert first.placed == again.placed
    assert not np.array_equal(first.image, other.image)


def test_scene_has_one_to_five_things_inside_the_picture() -> None:
    _need_font()
    settings = SceneSettings(size=96)
    counts = set()
    for index in range(60):
        scene = render_scene((10, index), settings)
        counts.add(len(scene.placed))
        assert scene.image.shape == (96, 96, 3)
        assert scene.image.dtype == np.uint8
        assert scene.things == tuple(sorted({placed.thing for placed in scene.placed}))
        for placed in scene.placed:
            left, top, _, _ = placed.box
            assert 0 <= left < 96
            assert 0 <= top < 96
    assert counts == {1, 2, 3, 4, 5}


def test_every_emoji_is_drawn() -> None:
    _need_font()
    for thing, facts in enumerate(THINGS):
        for variant in range(len(facts.emoji)):
            picture = scenes.sprite(thing, variant)
            assert min(picture.size) > 20, (facts.name, variant)


def test_missing_font_error_names_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scenes, "FONT_PATH", tmp_path / "none.ttf")
    scenes._font.cache_clear()
    scenes.sprite.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match="fonts-noto-color-emoji"):
            render_scene((9, 1))
    finally:
        scenes.sprite.cache_clear()
        scenes._font.cache_clear()

"""Captions: name only what is there, name something always, and two pools that never meet."""

from __future__ import annotations

import random
import re

from scripts.toyworld.captions import (
    TRAIN_WORDING,
    TUNING_WORDING,
    Wording,
    caption,
    tuning_captions,
)
from scripts.toyworld.drawing.things import THINGS
from taidpt.toyworld import assets

_FORMS = {
    form: index
    for index, thing in enumerate(THINGS)
    for form in (
        thing.name,
        *thing.synonyms,
        *(form for word in thing.words for form in (word.singular, word.plural)),
    )
}
_PATTERN = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, _FORMS), key=len, reverse=True)) + r")\b"
)


def _named(text: str) -> set[int]:
    """Things that a text names, longest form first, so that a hot dog is no dog."""
    return {_FORMS[form] for form in _PATTERN.findall(text.lower())}


def _scene(rng: random.Random) -> list[int]:
    return [rng.randrange(len(THINGS)) for _ in range(rng.randint(1, 5))]


def _check_pool(wording: Wording) -> int:
    rng = random.Random(3)
    left_out = 0
    for _ in range(3000):
        things = _scene(rng)
        named = _named(caption(rng, things, wording, ("stripes", "green")))
        assert named, "a caption must name something"
        assert named <= set(things)
        left_out += named != set(things)
    return left_out


def test_training_captions_name_only_things_of_the_scene() -> None:
    assert 300 < _check_pool(TRAIN_WORDING) < 1200


def test_tuning_captions_name_only_things_of_the_scene() -> None:
    assert 300 < _check_pool(TUNING_WORDING) < 1200


def test_every_word_of_every_thing_is_labelled() -> None:
    for index, thing in enumerate(THINGS):
        for word in thing.words:
            assert _named(f"we see two {word.plural}.") == {index}
            assert _named(f"we see the {word.singular}.") == {index}


def test_captions_depend_on_the_seed() -> None:
    assert list(tuning_captions(50)) == list(tuning_captions(50))
    assert list(tuning_captions(50)) != list(tuning_captions(50, seed=1))


def _matcher(wording: Wording) -> re.Pattern[str]:
    """Matches every text that a pool can make."""
    parts = (
        re.escape(sentence)
        .replace(r"\{things\}", "(?:[a-z ,'-]+)")
        .replace(r"\{colour\}", "(?:[a-z]+)")
        .replace(r"\{texture\}", "(?:[a-z]+)")
        for sentence in wording.sentences
    )
    return re.compile("|".join(f"(?:{part})" for part in parts), re.IGNORECASE)


def test_no_shipped_tuning_caption_fits_a_training_sentence() -> None:
    lines = assets.path("tuning_captions.txt").read_text("utf-8").splitlines()
    pattern = _matcher(TRAIN_WORDING)
    assert [line for line in lines if pattern.fullmatch(line)] == []


def test_no_shipped_tuning_caption_is_a_training_caption() -> None:
    lines = {
        line.lower() for line in assets.path("tuning_captions.txt").read_text("utf-8").splitlines()
    }
    rng = random.Random(4)
    seen = {caption(rng, _scene(rng)).lower() for _ in range(20000)}
    assert lines.isdisjoint(seen)


def test_no_training_sentence_speaks_of_photos_as_templates_do() -> None:
    words = {"photo", "picture", "image", "itap", "drawing", "sketch", "my", "close-up"}
    spoken = {word for text in TRAIN_WORDING.sentences for word in re.findall(r"[a-z-]+", text)}
    assert spoken.isdisjoint(words)
    assert min(len(re.findall(r"[a-z-]+", text)) for text in TRAIN_WORDING.sentences) > 1


def test_shipped_captions_come_from_the_generator() -> None:
    lines = assets.path("tuning_captions.txt").read_text("utf-8").splitlines()
    assert len(lines) == len(set(lines)) == 6000
    assert lines[:200] == list(tuning_captions(200))


def test_shipped_captions_name_every_tag_often() -> None:
    counts = [0] * len(THINGS)
    for line in assets.path("tuning_captions.txt").read_text("utf-8").splitlines():
        for thing in _named(line):
            counts[thing] += 1
    assert min(counts) >= 100

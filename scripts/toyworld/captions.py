"""Captions for scenes of the toy world, in many wordings; a caption may omit things.

There are two disjoint pools of sentences. The model trains on `TRAIN_WORDING`; prompts are tuned on
captions from `TUNING_WORDING`, so the model never saw a tuning caption. A caption names only things
in the scene.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scripts.toyworld.drawing.things import THINGS, Word

__all__ = [
    "TRAIN_WORDING",
    "TUNING_WORDING",
    "Wording",
    "caption",
    "caption_naming",
    "tuning_captions",
    "wording_words",
]

_TUNING_SEED = 7_700_001  # of the shipped captions


@dataclass(frozen=True)
class Wording:
    """A pool of sentences.

    Attributes:
        sentences: patterns with `{things}` and, in some, `{colour}` or `{texture}`.
        joiners: words that join two phrases outside a plain enumeration.
        omit: probability that a caption of two or more things omits some.
        synonym: probability that a thing is named by a word other than its common one.
    """

    sentences: tuple[str, ...]
    joiners: tuple[str, ...]
    omit: float = 0.3
    synonym: float = 0.3


TRAIN_WORDING = Wording(
    sentences=(
        "{things} on a {colour} background.",
        "{things} against a {colour} backdrop",
        "{things} over a {texture} background",
        "{things} on {texture} {colour}",
        "a scene with {things}.",
        "a {colour} scene with {things}",
        "there is {things} here",
        "here we see {things}",
        "you can see {things} on a {colour} ground.",
        "in this scene there is {things}",
        "on a {texture} surface, {things}.",
        "in front of a {colour} wall there is {things}.",
        "everything is {colour} except {things}",
        "look, {things}!",
        "some stickers: {things}",
        "{things} can be seen.",
        "{things} in the middle of {colour} stuff",
        "{things} and nothing else",
        "{things} floating around on {texture} paper",
    ),
    joiners=("with", "and", "next to", "beside", "near", "by", "along with", "plus"),
)

TUNING_WORDING = Wording(
    sentences=(
        "{things} placed on a {colour} tablecloth.",
        "{things} scattered across a {colour} page.",
        "{things} sitting over a {texture} pattern.",
        "{things} standing together in one place.",
        "{things} spread out on a {texture} sheet.",
        "{things} shown at different sizes.",
        "{things} arranged on a plain {colour} board.",
        "{things} in a room with {colour} walls.",
        "{things} are in the scene.",
        "{things} appear in the image.",
        "{things} on top of something {texture}.",
        "A view of {things}.",
        "A collection that includes {things}.",
        "A poster of {things}.",
        "A {colour} poster showing {things}.",
        "A group of things such as {things}.",
        "An illustration of {things} over {colour}.",
        "A {texture} card decorated with {things}.",
        "The artist painted {things}.",
        "The frame is filled with {things}.",
        "Several items are visible, including {things}.",
        "One can find {things} in this drawing.",
        "Someone left {things} on the {colour} floor.",
        "It looks like {things} over there.",
        "Photo taken of {things} outside.",
        "Small icons of {things} on {colour} ground.",
    ),
    joiners=("with", "and", "close to", "alongside", "next to", "in front of", "together with"),
)

_COLOURS = {
    "white", "black", "grey", "red", "green", "blue", "yellow", "purple", "pink", "brown",
    "beige", "turquoise",
}  # fmt: skip
_TEXTURES: dict[str, tuple[str, ...]] = {
    "flat": ("plain", "flat"),
    "gradient": ("shaded", "smooth"),
    "glow": ("glowing", "shaded"),
    "grain": ("noisy", "grainy"),
    "clouds": ("cloudy", "blotchy"),
    "stripes": ("striped", "lined"),
    "checks": ("checkered", "checked"),
    "dots": ("dotted", "spotted"),
    "patches": ("messy", "patchy"),
}
_COUNTS = {
    2: ("two", "a couple of", "some"),
    3: ("three", "some", "several"),
    4: ("four", "several"),
}
_ADJECTIVES = ("small", "big", "tiny", "large", "little", "colourful", "nice")


def _article(phrase: str) -> str:
    return "an" if phrase[0].lower() in "aeiou" else "a"


def _phrase(rng: random.Random, word: Word, count: int) -> str:
    """`a dog`, `the small dog`, `two dogs`."""
    if count > 1:
        return f"{rng.choice(_COUNTS.get(count, ('many',)))} {word.plural}"
    noun = word.singular
    if rng.random() < 0.12:
        noun = f"{rng.choice(_ADJECTIVES)} {noun}"
    draw = rng.random()
    if draw < 0.1:
        return noun
    if draw < 0.2:
        return f"{rng.choice(('the', 'one', 'this'))} {noun}"
    return f"{_article(noun)} {noun}"


def _join(rng: random.Random, phrases: Sequence[str], joiners: Sequence[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    if len(phrases) == 2 or rng.random() < 0.3:
        head, tail = phrases[0], phrases[1:]
        rest = _join(rng, tail, ("and",)) if len(tail) > 1 else tail[0]
        return f"{head} {rng.choice(joiners)} {rest}"
    last = rng.choice((" and ", ", and ", ", "))
    return ", ".join(phrases[:-1]) + last + phrases[-1]


def _named(rng: random.Random, things: Sequence[int], omit: float) -> list[int]:
    """The things that the caption names, in its order; at least one."""
    order = list(things)
    rng.shuffle(order)
    if len(order) > 1 and rng.random() < omit:
        order = order[: rng.randint(1, len(order) - 1)]
    return order


def _word(rng: random.Random, thing: int, synonym: float) -> Word:
    words = THINGS[thing].words
    return rng.choice(words[1:]) if len(words) > 1 and rng.random() < synonym else words[0]


def caption_naming(
    rng: random.Random,
    things: Sequence[int],
    wording: Wording = TRAIN_WORDING,
    background: tuple[str, str] = ("flat", "white"),
) -> tuple[str, list[int]]:
    """One caption of a scene, and the things it names.

    Args:
        rng: random number generator.
        things: indices into `THINGS`, with repetitions.
        wording: pool of sentences.
        background: family and colour name.
    """
    counts = Counter(things)
    named = _named(rng, sorted(counts), wording.omit)
    phrases = [_phrase(rng, _word(rng, thing, wording.synonym), counts[thing]) for thing in named]
    family, colour = background
    text = rng.choice(wording.sentences).format(
        things=_join(rng, phrases, wording.joiners),
        colour=colour,
        texture=rng.choice(_TEXTURES.get(family, ("textured", "patterned"))),
    )
    return text, named


def caption(
    rng: random.Random,
    things: Sequence[int],
    wording: Wording = TRAIN_WORDING,
    background: tuple[str, str] = ("flat", "white"),
) -> str:
    """The text of `caption_naming`."""
    return caption_naming(rng, things, wording, background)[0]


def wording_words() -> list[str]:
    """Every text fragment of both pools, for the tokenizer's vocabulary."""
    fragments = [*_ADJECTIVES, *_COLOURS]
    for wording in (TRAIN_WORDING, TUNING_WORDING):
        fragments += [
            *wording.joiners,
            *(text.replace("{", "").replace("}", "") for text in wording.sentences),
        ]
    fragments += [word for words in _TEXTURES.values() for word in words]
    fragments += [word for words in _COUNTS.values() for word in words]
    return fragments


def tuning_captions(count: int, seed: int = _TUNING_SEED) -> Iterator[str]:
    """Distinct captions for prompt tuning, of random scenes that are not rendered.

    Args:
        count: number of captions.
        seed: seed of scenes and wordings.
    """
    rng = random.Random(seed)
    seen: set[str] = set()
    families, colours = sorted(_TEXTURES), sorted(_COLOURS)
    while len(seen) < count:
        things = [rng.randrange(len(THINGS)) for _ in range(rng.randint(1, 5))]
        text = caption(rng, things, TUNING_WORDING, (rng.choice(families), rng.choice(colours)))
        text = text[0].upper() + text[1:]
        if text not in seen:
            seen.add(text)
            yield text

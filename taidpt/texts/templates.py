"""Texts made from tags: the published templates, and sentences for users without captions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

__all__ = ["PLAIN_TEMPLATE", "ensemble_templates", "template_texts", "texts_from_names"]

PLAIN_TEMPLATE = "a photo of a {}."
_PLAIN_COPIES = 9  # as in the authors' training texts

# {} is a list of things such as "a dog, a cat and a bus".
_SENTENCES = (
    "a photo of {}.",
    "{} in one picture.",
    "There is {} in the scene.",
    "We can see {} here.",
    "A close view of {}.",
    "{} in the background.",
    "A camera looks at {}.",
    "{} on the left side of the image.",
    "A blurry picture that shows {}.",
    "This is {}, seen from far away.",
    "Somebody took a picture of {}.",
    "{} outdoors on a bright day.",
    "{} at night.",
    "{} indoors.",
)


def ensemble_templates() -> tuple[str, ...]:
    """The 80 ImageNet templates of Radford et al. 2021, with `{}` for the name, from open_clip."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def template_texts(names: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
    """Texts of each class alone: 9 × the plain template and the 80 ImageNet templates.

    Args:
        names: C class names.
    Returns:
        89 · C pairs of text and labels, class by class.
    Source: the authors' training texts, section 1 of the method.
    """
    templates = (*([PLAIN_TEMPLATE] * _PLAIN_COPIES), *ensemble_templates())
    return [
        (template.replace("{}", name), (index,))
        for index, name in enumerate(names)
        for template in templates
    ]


def texts_from_names(
    names: Sequence[str], count: int = 4000, seed: int = 0
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Texts for users without captions: sentences that name one to three tags.

    Every tag is drawn equally often as the first one; equal arguments give equal texts.

    Args:
        names: C tag names.
        count: number of texts.
        seed: seed of the choice of further tags, order and wording.
    Returns:
        Pairs of text and labels, ascending.
    """
    generator = random.Random(seed)
    for number in range(count):
        first = number % len(names)
        further = generator.randint(0, min(2, len(names) - 1))
        others = [index for index in range(len(names)) if index != first]
        chosen = [first, *generator.sample(others, further)]
        generator.shuffle(chosen)
        things = _listed([_with_article(names[index]) for index in chosen])
        sentence = generator.choice(_SENTENCES).replace("{}", things)
        yield sentence[0].upper() + sentence[1:], tuple(sorted(chosen))


def _with_article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _listed(things: Sequence[str]) -> str:
    if len(things) == 1:
        return things[0]
    return f"{', '.join(things[:-1])} and {things[-1]}"

"""Background nouns: shipped, distinct, and never a word of the user's tags."""

from __future__ import annotations

import pytest

from taidpt.texts.background import background_tags
from taidpt.texts.tags import Tag, TagSet


def names(*tags: str | Tag) -> set[str]:
    every = TagSet(tuple(tag if isinstance(tag, Tag) else Tag(tag) for tag in tags))
    return {noun.name for noun in background_tags(every)}


def test_a_hundred_nouns_compete_with_an_unrelated_tag() -> None:
    assert 100 <= len(names("quasar")) <= 115


@pytest.mark.parametrize(
    ("tag", "gone"),
    [
        ("cats", "cat"),
        ("police car", "car"),
        ("Leaves", "leaf"),
        ("wine bottle", "bottle"),
        ("canoe", "boat"),
        (Tag("vehicle", ("lorry", "trucks")), "truck"),
    ],
)
def test_nouns_that_share_a_word_with_a_tag_are_left_out(tag: str | Tag, gone: str) -> None:
    assert gone in names("quasar")
    assert gone not in names(tag)
    assert len(names(tag)) > 90


def test_nouns_and_tags_form_one_valid_list() -> None:
    tags = TagSet.from_names(["traffic light", "ski", "scissors"])
    assert len(TagSet((*tags, *background_tags(tags)))) == 3 + len(background_tags(tags))

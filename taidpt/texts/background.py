"""Background tags: common nouns that compete with a user's tags and are never reported."""

from __future__ import annotations

from importlib import resources

from taidpt.texts.labels import TextLabeler
from taidpt.texts.tags import Tag, TagSet

__all__ = ["background_tags"]


def background_tags(tags: TagSet) -> tuple[Tag, ...]:
    """The shipped nouns that share no word with the tags.

    "car" is left out for a tag "police car", because a picture of the one shows the other; so is
    "dog" for "hot dog", which costs little among a hundred nouns.

    Args:
        tags: C tags.
    Returns:
        Tags with their synonyms, none of which shares a word with a tag.
    """
    path = resources.files("taidpt") / "data" / "background.yaml"
    labeler = TextLabeler(tags)
    used = {lemma for name in labeler.names for lemma in name}
    return tuple(
        noun
        for noun in TagSet.load(str(path))
        if used.isdisjoint(lemma for word in noun.words for lemma in labeler.lemmas(word))
    )

"""Negated names: "a street without cars" does not name the tag "car".

A name is negated when it follows

- "no", "without", "neither", "nor" or "free of" (also "devoid of", "empty of", "clear of"), with
  articles and similar words and at most one other word between: "without any parked cars". If that
  word or the name ends in "ing", the name counts: a "no skiing" sign, "without a shirt running";
- "not" or "never" (also "isn't", "don't", …), with articles and perhaps a form of "have", "show",
  "contain", "include" or "see" between: "not a dog", "does not have any cars";
- "or" or a bare "and" after a negated thing: "no cars or trucks"; but the dog counts in "without a
  hat and a dog".

"Car-free" is read as "no car". Limits: negations by a verb ("lacks a door"), after the name ("cars
are missing"), of an action ("not riding the bike": the bike may be there), at a distance ("no sign
of any cars") and over commas ("no cars, trucks, buses") have no effect. English alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["is_negated", "names_negation"]

_NO = {"no", "without", "neither", "nor"}
_OF_NOTHING = {"free", "devoid", "empty", "clear"}
_NOT = {
    "not", "never", "cannot", "arent", "aint", "cant", "didnt", "doesnt", "dont", "hadnt", "hasnt",
    "havent", "isnt", "wasnt", "werent",
}  # fmt: skip
_HAVING = {
    "have", "has", "having", "show", "shows", "showing", "contain", "contains", "containing",
    "include", "includes", "including", "see",
}  # fmt: skip
_ARTICLES = {
    "a", "an", "the", "any", "other", "another", "single", "more", "even", "his", "her", "its",
    "their", "my", "our", "your", "this", "that", "these", "those",
}  # fmt: skip
# Words that cannot stand between "no" and the noun that it negates.
_STOPS = {
    "about", "above", "across", "after", "against", "along", "and", "are", "around", "as", "at",
    "before", "behind", "below", "beside", "between", "but", "by", "can", "down", "during",
    "except", "for", "from", "in", "inside", "into", "is", "just", "like", "near", "next", "of",
    "off", "on", "one", "only", "onto", "or", "out", "over", "past", "so", "than", "then",
    "through", "to", "toward", "towards", "under", "until", "up", "was", "were", "when", "where",
    "which", "while", "who", "with", "yet",
}  # fmt: skip
_CUES = _NO | _OF_NOTHING | _NOT


def names_negation(words: Sequence[str]) -> bool:
    """Whether any word of a text can begin a negation; most texts have none."""
    return not _CUES.isdisjoint(words)


def is_negated(words: Sequence[str], start: int, ends: Mapping[int, int]) -> bool:
    """Whether the name that begins at a word is negated by the words before it.

    Args:
        words: the words and punctuation marks of a text, lower-case, without apostrophes.
        start: index of the name's first word.
        ends: the end of each matched name → its start.
    """
    place = _before_articles(words, start)
    if place < 0:
        return False
    word = words[place]
    if _is_no(words, place) or word in _NOT:
        return True
    if word in _HAVING:
        return place > 0 and words[place - 1] in _NOT
    if word == "or" or (word == "and" and place == start - 1):
        previous = ends.get(place, place - 1)
        return previous >= 0 and is_negated(words, previous, ends)
    if word.isalnum() and word not in _STOPS and not {word[-3:], words[start][-3:]} & {"ing"}:
        place = _before_articles(words, place)
        return place >= 0 and _is_no(words, place)
    return False


def _before_articles(words: Sequence[str], start: int) -> int:
    """Index of the last word before `start` that is no article; −1 if there is none."""
    place = start - 1
    while place >= 0 and words[place] in _ARTICLES:
        place -= 1
    return place


def _is_no(words: Sequence[str], place: int) -> bool:
    if words[place] == "of":
        return place > 0 and words[place - 1] in _OF_NOTHING
    return words[place] in _NO

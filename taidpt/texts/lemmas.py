"""The dictionary form of English words, and the plurals of nouns.

simplemma's table does the work. Added are plurals that it reads as verbs or does not know, because
a tag must be found in the plural too. `inflect` knows the plurals, but takes longer to import than
40,000 captions take to label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from taidpt.runtime.optional import optional_packages

__all__ = ["load_lemmatizer", "plurals"]

# Nouns whose plural ends in "ves", also as the last part of a compound ("bookshelf"). Listed, for
# the rule alone would make "caves" the plural of "cafe" and "saves" that of "safe".
_VES = (
    "calf", "dwarf", "elf", "half", "hoof", "knife", "leaf", "life", "loaf", "scarf", "sheaf",
    "shelf", "thief", "wharf", "wife", "wolf",
)  # fmt: skip


def _ves(noun: str) -> str:
    return noun.removesuffix("e").removesuffix("f") + "ves"


# simplemma reads these as verbs ("leaves" as "leave") or as rarer words. "lives" is missing because
# it is mostly a verb in captions.
_LEMMAS = {_ves(noun): noun for noun in _VES if noun != "life"}
_LEMMAS |= {"bare": "bare", "poles": "pole", "skies": "sky"}
_ENDINGS = (("man", "men"), ("y", "ies"), ("is", "es"), ("um", "a"), ("us", "usses"))
# Words that only look like the plural of a short noun ("doe", "u").
_NO_PLURALS = {"as", "does", "has", "his", "is", "its", "this", "thus", "us", "was", "yes"}


def load_lemmatizer() -> Callable[[str], str]:
    """A function that gives the dictionary form of a lower-case English word, of any class.

    Raises:
        MissingDependencyError: simplemma is not installed.
    """
    with optional_packages("labelling texts", "tune"):
        import simplemma

    def step(word: str) -> str:
        lemma: str = simplemma.lemmatize(word, lang="en")
        if lemma == word and simplemma.is_known(word, lang="en"):
            return lemma
        # The table leaves unknown words as they are, and proper nouns but for their case.
        return _singular(word) if lemma.lower() == word else lemma.lower()

    def lemmatize(word: str) -> str:
        # Repeated, because "mopeds" becomes "moped", which becomes "mope"; a few words go round.
        seen: set[str] = set()
        while word not in seen and word not in _LEMMAS:
            seen.add(word)
            word = step(word)
        return _LEMMAS.get(word, word)

    return lemmatize


def _singular(word: str) -> str:
    """A guess for a word outside the dictionary: its regular singular, or the word."""
    if len(word) < 3 or word.endswith("ss"):
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    if word.endswith(("ses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    return word.removesuffix("s")


def plurals(noun: str) -> Iterator[str]:
    """Possible plurals of an English noun; some are no words, so no text holds them.

    Other irregular plurals ("feet", "cacti") are in the lemmatiser's table.
    """
    if noun == "person":
        yield "people"
    for ending, plural in _ENDINGS:
        if noun.endswith(ending):
            yield noun.removesuffix(ending) + plural
    if noun.endswith(_VES):
        yield _ves(noun)
    if noun.endswith(("s", "x", "z", "ch", "sh", "o")):
        yield f"{noun}es"
    if len(noun) > 1 and f"{noun}s" not in _NO_PLURALS:
        yield f"{noun}s"

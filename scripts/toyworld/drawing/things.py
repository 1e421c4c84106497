"""The things of the toy world: sixty tags, their emoji, and their words.

Names are COCO's where COCO has the thing.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TAG_NAMES", "THINGS", "Thing", "Word"]


@dataclass(frozen=True)
class Word:
    """A word for a thing: `a {singular}`, `two {plural}`."""

    singular: str
    plural: str


@dataclass(frozen=True)
class Thing:
    """One tag of the toy world.

    Attributes:
        name: the tag.
        emoji: single code points, each a picture of the thing.
        words: its names in captions, the most common first.
        synonyms: its synonyms in `tags.yaml`; they cover every word of `words`.
    """

    name: str
    emoji: str
    words: tuple[Word, ...]
    synonyms: tuple[str, ...]


def _plural(word: str) -> str:
    if word.endswith(("s", "ch", "sh", "x")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


_IRREGULAR = {
    "man": "men",
    "woman": "women",
    "sheep": "sheep",
    "person": "people",
    "teddy": "teddies",
    "aircraft": "aircraft",
    "skis": "pairs of skis",
    "scissors": "pairs of scissors",
    "broccoli": "pieces of broccoli",
    "knife": "knives",
}
_MEASURED = {
    "skis": "pair of skis",
    "scissors": "pair of scissors",
    "broccoli": "piece of broccoli",
}


def _thing(name: str, emoji: str, *others: str) -> Thing:
    words = tuple(
        Word(_MEASURED.get(word, word), _IRREGULAR.get(word, _plural(word)))
        for word in (name, *others)
    )
    return Thing(name, emoji, words, others)


THINGS: tuple[Thing, ...] = (
    _thing("person", "🧍🏃💃🚶🕺", "man", "woman"),
    _thing("bicycle", "🚲", "bike", "cycle"),
    _thing("car", "🚗🚙🚕🚘", "automobile", "taxi"),
    _thing("motorcycle", "🏍🛵", "motorbike", "scooter"),
    _thing("airplane", "✈🛩🛫", "plane", "jet"),
    _thing("bus", "🚌🚍🚎", "minibus"),
    _thing("train", "🚂🚆🚅", "locomotive"),
    _thing("truck", "🚚🚛🛻", "lorry"),
    _thing("boat", "⛵🚤🛥", "sailboat", "ship"),
    _thing("traffic light", "🚦🚥", "traffic signal", "stoplight"),
    _thing("stop sign", "🛑"),
    _thing("bird", "🐦🦜🦆🐤", "parrot", "duck"),
    _thing("cat", "🐈🐱😺", "kitten", "kitty"),
    _thing("dog", "🐕🐶🐩", "puppy", "hound"),
    _thing("horse", "🐎🐴", "pony"),
    _thing("sheep", "🐑🐏", "lamb"),
    _thing("cow", "🐄🐮🐂", "bull"),
    _thing("elephant", "🐘"),
    _thing("bear", "🐻", "brown bear"),
    _thing("zebra", "🦓"),
    _thing("giraffe", "🦒"),
    _thing("backpack", "🎒", "rucksack"),
    _thing("umbrella", "☂☔🌂⛱", "parasol"),
    _thing("handbag", "👜👛👝", "purse"),
    _thing("suitcase", "🧳💼", "briefcase"),
    _thing("frisbee", "🥏", "flying disc"),
    _thing("skis", "🎿", "ski"),
    _thing("sports ball", "⚽🏀🏈⚾🏐", "ball", "football"),
    _thing("kite", "🪁"),
    _thing("skateboard", "🛹"),
    _thing("bottle", "🍾🍼🧴", "flask"),
    _thing("wine glass", "🍷", "glass of wine"),
    _thing("cup", "☕🍵🥤", "mug"),
    _thing("knife", "🔪🗡", "blade"),
    _thing("spoon", "🥄", "tablespoon"),
    _thing("banana", "🍌"),
    _thing("apple", "🍎🍏"),
    _thing("sandwich", "🥪"),
    _thing("orange", "🍊", "tangerine"),
    _thing("broccoli", "🥦"),
    _thing("carrot", "🥕"),
    _thing("hot dog", "🌭", "hotdog"),
    _thing("pizza", "🍕", "pizza slice"),
    _thing("donut", "🍩", "doughnut"),
    _thing("cake", "🎂🍰", "birthday cake"),
    _thing("chair", "🪑", "seat"),
    _thing("couch", "🛋", "sofa"),
    _thing("potted plant", "🪴", "houseplant"),
    _thing("bed", "🛏", "mattress"),
    _thing("toilet", "🚽"),
    _thing("tv", "📺", "television"),
    _thing("laptop", "💻", "notebook computer"),
    _thing("keyboard", "⌨"),
    _thing("cell phone", "📱📲", "mobile phone", "smartphone"),
    _thing("book", "📕📖📚📗", "novel"),
    _thing("clock", "⏰🕰🕒", "alarm clock"),
    _thing("vase", "🏺", "urn"),
    _thing("scissors", "✂"),
    _thing("teddy bear", "🧸", "teddy"),
    _thing("toothbrush", "🪥"),
)

TAG_NAMES: tuple[str, ...] = tuple(thing.name for thing in THINGS)

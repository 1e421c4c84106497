"""Labels from texts: the method's rules on sentences, then on real captions."""

from __future__ import annotations

import pytest

from taidpt.runtime.errors import InputError
from taidpt.texts.captions import read_texts
from taidpt.texts.labels import LabelReport, TextLabeler, balance_texts, label_texts
from taidpt.texts.tags import Tag, TagSet
from tests.support import shared_data

TAGS = TagSet(
    (
        Tag("dog", ("puppy",)),
        Tag("hot dog"),
        Tag("traffic light", ("stop light",)),
        Tag("motor cycle", ("motorbike",)),
        Tag("person", ("man", "woman", "people")),
        Tag("wine glass"),
        Tag("bus"),
    )
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("A hot dog on a plate.", {"hot dog"}),
        ("A dog eats a hot dog.", {"dog", "hot dog"}),
        ("HOT DOGS!", {"hot dog"}),
        ("hot-dogs and a hotdog", {"hot dog"}),
        ("It is hot, dog days are here", {"dog"}),
        ("two puppies and three buses", {"dog", "bus"}),
        ("the dog's bowl, the dogs' bowls", {"dog"}),
        ("Men and women at the stop lights", {"person", "traffic light"}),
        ("a light in traffic", set()),
        ("motorcycles, motor cycles, motorbikes", {"motor cycle"}),
        ("wine in glasses", set()),
        ("four wine glasses", {"wine glass"}),
        ("dogmas of a busker", set()),
        ("", set()),
    ],
)
def test_sentences(text: str, names: set[str]) -> None:
    labels = TextLabeler(TAGS).labels(text)
    assert {TAGS.names[index] for index in labels} == names
    assert list(labels) == sorted(labels)


def test_words_around_a_match_do_not_join() -> None:
    tags = TagSet.from_names(["hot dog", "red stand"])
    assert TextLabeler(tags).labels("a red hot dog stand") == (0,)


def test_equally_long_names_match_from_left_to_right() -> None:
    tags = TagSet.from_names(["one two three four", "red bus", "bus stop", "stop"])
    assert TextLabeler(tags).labels("a red bus stop") == (1, 3)


def test_words_that_the_lemmatiser_misreads() -> None:
    tags = TagSet.from_names(["skis", "sky", "bear", "left hand"])
    labeler = TextLabeler(tags)
    assert labeler.labels("bare feet under cloudy skies, the left hands up") == (1, 3)
    assert labeler.labels("a man skis past bears") == (0, 2)


def test_all_tags_that_read_the_same_are_refused_at_once() -> None:
    names = ["glass", "glasses", "dog", "swim", "swimming", "leaf", "leaves", "dance", "dancing"]
    with pytest.raises(InputError) as caught:
        TextLabeler(TagSet.from_names(names))
    for pair in ("'glass' and 'glasses'", "'swim' and 'swimming'", "'leaf' and 'leaves'"):
        assert pair in str(caught.value)
    assert "'dog'" not in str(caught.value)
    assert "\n" not in str(caught.value)


# Regular, irregular and "ves" plurals; words outside the dictionary; plurals that are verbs too.
PLURALS = {
    "leaf": "leaves", "maple leaf": "maple leaves", "calf": "calves", "loaf": "loaves",
    "bookshelf": "bookshelves", "thief": "thieves", "wife": "wives", "cafe": "cafes",
    "tv": "TVs", "suv": "SUVs", "gpu": "GPUs", "usb stick": "USB sticks", "kiosk": "kiosks",
    "moped": "mopeds", "doggy": "doggies", "labrador": "Labradors", "clementine": "clementines",
    "iphone": "iPhones", "scaffolding": "scaffoldings", "cobot": "cobots", "ebike": "ebikes",
    "tuktuk": "tuktuks", "hardhat": "hardhats", "vespa": "vespas", "trolleybus": "trolleybuses",
    "fireman": "firemen", "person": "people", "foot": "feet", "cactus": "cacti", "axis": "axes",
    "stadium": "stadia", "rose": "roses", "saw": "saws", "ski pole": "ski poles", "box": "boxes",
}  # fmt: skip


@pytest.mark.parametrize("name", PLURALS)
def test_every_tag_matches_its_own_plural(name: str) -> None:
    assert TextLabeler(TagSet.from_names([name])).labels(f"Two {PLURALS[name]} there") == (0,)


@pytest.mark.parametrize("name", sorted(PLURALS.keys() - {"person", "axis", "stadium"}))
def test_a_tag_in_the_plural_matches_its_singular(name: str) -> None:
    assert TextLabeler(TagSet.from_names([PLURALS[name]])).labels(f"one {name} there") == (0,)


def test_words_that_only_look_like_a_plural_do_not_match() -> None:
    labeler = TextLabeler(TagSet.from_names(["doe", "safe", "cafe", "leaf"]))
    assert labeler.labels("he does see caves, saves a cat, and is leaving") == ()


@pytest.mark.parametrize("hyphen", ["-", "\u2010", "\u2011", "\u2013"])
def test_every_hyphen_separates_words_as_a_space_does(hyphen: str) -> None:
    labeler = TextLabeler(TagSet.from_names(["jet ski", "wave", "orange"]))
    assert labeler.labels(f"two jet{hyphen}skis") == (0,)
    assert labeler.labels(f"a wave{hyphen}covered orange{hyphen}hooded man") == (1, 2)
    assert labeler.labels(f"a photo {hyphen} with an orange") == (2,)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("A square without buses", {"square"}),
        ("without any parked buses in the square", {"square"}),
        ("No cats allowed", set()),
        ("no fat cats on the bench", {"bench"}),
        ("not a cat, never a bus", set()),
        ("It isn't a bus but a bench", {"bench"}),
        ("it doesn’t have any benches", set()),
        ("a square free of buses", {"square"}),
        ("a bus-free square", {"square"}),
        ("a sugar\u2010free bench", {"bench"}),
        ("neither cats nor buses", set()),
        ("no buses or cats", set()),
        ("without buses and cats", set()),
        ("a square with no hats or cats", {"square"}),
        ("without a hat and a cat", {"cat"}),
        ("no bus, but a cat", {"cat"}),
        ("no cat here, a cat there", {"cat"}),
        ("a cat without its bench", {"cat"}),
        ("a man without a hat pats a cat", {"cat"}),
        ("the cat is not on the bench", {"cat", "bench"}),
        ("no one feeds the cat", {"cat"}),
        ("not only a cat", {"cat"}),
        ("without boots boarding a bus", {"bus"}),
        ("behind a no sitting bench", {"bench"}),
        ("cats or buses", {"cat", "bus"}),
    ],
)
def test_negated_names_are_no_labels(text: str, names: set[str]) -> None:
    tags = TagSet.from_names(["bus", "cat", "bench", "square"])
    assert {tags.names[index] for index in TextLabeler(tags).labels(text)} == names


def test_a_negated_name_is_still_taken_out_of_the_text() -> None:
    tags = TagSet.from_names(["hot dog", "dog"])
    assert TextLabeler(tags).labels("no hot dogs") == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("自行车", "路边停着两辆自行车"),
        ("犬", "公園で犬が走っている"),
        ("แมว", "มีแมวอยู่บนโต๊ะ"),
        ("grüße", "Viele Gru\u0308ße"),
        ("e\u0301le\u0301phant", "un éléphant"),
    ],
)
def test_names_in_other_scripts_and_forms_of_accents_are_found(name: str, text: str) -> None:
    tags = TagSet.from_names([name, "dog"])
    assert TextLabeler(tags).labels(text) == (0,)


def test_report_counts_and_warns() -> None:
    report = LabelReport(TAGS)
    texts = ["A dog.", "Nothing here.", "A puppy on a bus."]
    assert list(label_texts(texts, TAGS, report)) == [
        ("A dog.", (0,)),
        ("A puppy on a bus.", (0, 6)),
    ]
    assert (report.texts, report.unnamed) == (3, 1)
    assert report.counts == [2, 0, 0, 0, 0, 0, 1]
    assert report.examples[0] == ["A dog.", "A puppy on a bus."]
    assert report.missing == ("hot dog", "traffic light", "motor cycle", "person", "wine glass")
    lines = list(report.lines())
    assert lines[0].startswith("3 texts, 2 (66.7 %) name at least one of 7 tags")
    assert lines[1].split() == ["dog", "2", "A", "dog."]
    assert "no text names 5 of 7 tags" in lines[-1]


def test_balancing_counts_each_text_for_its_rarest_class() -> None:
    texts = [("a", (0, 1)), ("b", (0,)), ("c", (0,)), ("d", (0, 1)), ("e", (0, 2)), ("f", (0,))]
    # Frequencies 6, 2, 1: a and d count for class 1, e for class 2, the rest for class 0.
    assert [text for text, _ in balance_texts(texts, 3, limit=1)] == ["a", "b", "e"]
    assert balance_texts(texts, 3, limit=9) == texts


def test_real_captions_are_labelled_completely() -> None:
    """Counts are checked against an independent reading of the surface forms."""
    path = shared_data("data/captions/flickr8k.token.txt.gz")
    tags = TagSet((Tag("dog"), Tag("frisbee"), Tag("fire hydrant"), Tag("giraffe")))
    report = LabelReport(tags)
    labelled = list(label_texts(read_texts(path), tags, report))
    assert report.texts == 40_460
    assert len(labelled) == report.texts - report.unnamed
    texts = [f" {text.lower()} " for text in read_texts(path)]
    for index, forms in enumerate((("dog", "dogs"), ("frisbee", "frisbees"), ("fire hydrant",))):
        named = sum(any(f" {form} " in text for form in forms) for text in texts)
        assert named <= report.counts[index] <= 1.05 * named
    assert report.missing == ("giraffe",)

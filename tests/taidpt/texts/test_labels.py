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


def test_what_is_left_of_a_found_name_does_not_join() -> None:
    tags = TagSet.from_names(["hot dog", "red stand"])
    assert TextLabeler(tags).labels("a red hot dog stand") == (0,)


def test_equally_long_names_go_from_left_to_right_up_to_the_end() -> None:
    tags = TagSet.from_names(["one two three four", "red bus", "bus stop", "stop"])
    assert TextLabeler(tags).labels("a red bus stop") == (1, 3)


def test_words_that_the_lemmatizer_gets_wrong() -> None:
    tags = TagSet.from_names(["skis", "sky", "bear", "left hand"])
    labeler = TextLabeler(tags)
    assert labeler.labels("bare feet under cloudy skies, the left hands up") == (1, 3)
    assert labeler.labels("a man skis past bears") == (0, 2)


def test_tags_that_read_the_same_are_refused() -> None:
    with pytest.raises(InputError, match="'glass' and 'glasses' read the same"):
        TextLabeler(TagSet.from_names(["glass", "glasses"]))


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


def test_balancing_gives_each_text_to_its_rarest_class() -> None:
    texts = [("a", (0, 1)), ("b", (0,)), ("c", (0,)), ("d", (0, 1)), ("e", (0, 2)), ("f", (0,))]
    # Frequencies 6, 2, 1: a and d count for class 1, e for class 2, the rest for class 0.
    assert [text for text, _ in balance_texts(texts, 3, limit=1)] == ["a", "b", "e"]
    assert balance_texts(texts, 3, limit=9) == texts


def test_real_captions_are_labelled_whole() -> None:
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

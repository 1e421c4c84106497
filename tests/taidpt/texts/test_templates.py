"""Texts made from tags."""

from __future__ import annotations

from collections import Counter

from taidpt.texts.labels import TextLabeler
from taidpt.texts.tags import TagSet
from taidpt.texts.templates import (
    PLAIN_TEMPLATE,
    ensemble_templates,
    template_texts,
    texts_from_names,
)

NAMES = ("dog", "hot dog", "umbrella", "bus")


def test_eighty_templates_with_one_gap_each() -> None:
    templates = ensemble_templates()
    assert len(set(templates)) == 80
    assert all(template.count("{}") == 1 for template in templates)


def test_template_texts_are_one_hot_and_as_many_as_published() -> None:
    texts = template_texts(NAMES)
    assert len(texts) == len(NAMES) * 89
    assert Counter(labels for _, labels in texts) == {(i,): 89 for i in range(len(NAMES))}
    assert Counter(texts)[(PLAIN_TEMPLATE.replace("{}", "hot dog"), (1,))] >= 9


def test_texts_from_names_name_exactly_their_labels() -> None:
    texts = list(texts_from_names(NAMES, count=400, seed=3))
    labeler = TextLabeler(TagSet.from_names(NAMES))
    assert len(texts) == 400
    for text, labels in texts:
        assert labeler.labels(text) == labels
    assert {len(labels) for _, labels in texts} == {1, 2, 3}
    leads = Counter(index for _, labels in texts for index in labels)
    assert min(leads.values()) >= 100
    assert texts == list(texts_from_names(NAMES, count=400, seed=3))
    assert texts != list(texts_from_names(NAMES, count=400, seed=4))


def test_a_single_tag_is_enough() -> None:
    assert {labels for _, labels in texts_from_names(("dog",), count=5)} == {(0,)}

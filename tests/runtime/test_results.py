"""Results of tagging: which tags are on, which are uncertain, which scores are known."""

from __future__ import annotations

import numpy as np
import pytest

from taidpt.runtime.bank.thresholds import UNCERTAIN, Threshold
from taidpt.runtime.results import Tag, TagBatch, TagResult, Vocabulary


def vocabulary(*on: float) -> Vocabulary:
    names = tuple(f"tag {index}" for index in range(len(on)))
    thresholds = [Threshold(value, value - 1, "default") for value in on]
    return Vocabulary(names, thresholds, [None] * len(on), (1, 1))


def top_batch(rows: list[list[float]], indices: list[list[int]], tags: Vocabulary) -> TagBatch:
    """A batch as a graph exported with --top-k gives it: the best scores of each frame."""
    outputs = {
        "top_scores": np.array(rows, np.float32),
        "top_indices": np.array(indices),
        "patch_features": np.zeros((len(rows), 1, 1), np.float32),
    }
    return TagBatch(outputs, tags)


def test_batch_and_results_of_a_top_k_export_agree_on_which_tags_are_on() -> None:
    """All thresholds lie below the K-th score, which is an upper bound of the other tags."""
    batch = top_batch([[3.0, 2.5], [4.0, 3.5]], [[4, 1], [0, 2]], vocabulary(*[1.0] * 5))
    assert batch.on.tolist() == [
        [False, True, False, False, True],
        [True, False, True] + 2 * [False],
    ]
    for row, result in zip(batch.on, batch, strict=True):
        assert row.tolist() == result.on.tolist()
        assert row.tolist() == [result[name].on for name in batch.vocabulary.names]
        assert {tag.name for tag in result.on_tags} == {
            name for name, on in zip(batch.vocabulary.names, row, strict=True) if on
        }


def test_a_known_score_below_its_threshold_is_off_in_batch_and_result() -> None:
    batch = top_batch([[3.0, 2.5]], [[2, 0]], vocabulary(2.75, 1.0, 3.0))
    assert batch.on.tolist() == [[False, False, True]]
    assert batch[0].on.tolist() == [False, False, True]


def test_a_score_equal_to_its_threshold_is_on() -> None:
    scores = np.array([2.0, np.nextafter(np.float32(2), np.float32(0))], np.float32)
    result = TagResult(scores, np.zeros((1, 1), np.float32), None, vocabulary(2.0, 2.0))
    assert result.on.tolist() == [True, False]
    assert [tag.on for tag in result.tags] == [True, False]


@pytest.mark.parametrize(("edge", "inside"), [(0.2, 1.0), (0.8, 0.0)])
def test_uncertain_band_excludes_its_edges(edge: float, inside: float) -> None:
    """Literal edges: a change of the band must be a decision, seen here and in the documents."""
    assert edge in UNCERTAIN
    assert not Tag("a", 1.0, True, edge).uncertain
    assert not Tag("a", 1.0, True, float(np.nextafter(edge, 1 - inside))).uncertain
    assert Tag("a", 1.0, True, float(np.nextafter(edge, inside))).uncertain


def test_uncalibrated_tag_is_not_uncertain() -> None:
    assert not Tag("a", 1.0, True).uncertain


def text_vocabulary(*sources: str) -> Vocabulary:
    """Tags whose maps are sure of every score, as a model tuned on a few captions has them."""
    sure = {"scores": [0.0, 1.0], "probabilities": [0.99, 1.0]}
    names = tuple(f"tag {index}" for index in range(len(sources)))
    thresholds = [Threshold(0.5, 0.0, source) for source in sources]
    return Vocabulary(names, thresholds, [sure] * len(sources), (1, 1))


def text_result(vocabulary: Vocabulary) -> TagResult:
    scores = np.full(len(vocabulary.names), 0.75, np.float32)
    return TagResult(scores, np.zeros((1, 1), np.float32), None, vocabulary)


@pytest.mark.parametrize(
    ("source", "probability", "note"),
    [
        ("from texts", None, "thresholds from texts: a first guess"),
        ("from texts, all tags", None, "thresholds from texts, all tags: a first guess"),
        ("from other tags", None, "thresholds from other tags: a first guess"),
        ("calibrated", 0.9975, ""),
    ],
)
def test_thresholds_from_texts_are_marked_and_give_no_probability(
    source: str, probability: float | None, note: str
) -> None:
    result = text_result(text_vocabulary(source))
    (tag,) = result.tags
    assert tag.probability == (None if probability is None else pytest.approx(probability))
    assert tag.threshold_source == source
    assert result.to_dict()["tags"][0]["threshold_source"] == source
    assert result.vocabulary.text_note == note
    assert note in repr(result)
    assert ("guess" in repr(result)) is bool(note)


def test_a_given_threshold_is_no_guess_but_makes_no_probability_either() -> None:
    result = text_result(text_vocabulary("from texts").with_threshold(0.5, 0.5))
    assert result.vocabulary.text_note == ""
    assert result.tags[0].threshold_source == "given"
    assert result.tags[0].probability is None

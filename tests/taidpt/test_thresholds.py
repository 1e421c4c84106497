"""Held-out texts; thresholds and probabilities from texts alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from taidpt.judging.measures import f1_scores
from taidpt.runtime.bank.probability_maps import ProbabilityMaps
from taidpt.runtime.errors import InputError
from taidpt.text_thresholds import TextTag, tags_from_texts
from taidpt.tuning.held_out import split_held_out

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def named_by(counts: tuple[int, ...], texts: int = 200) -> Bools:
    """Texts of which the first few name each tag."""
    return np.arange(texts)[:, None] < np.array(counts)


def made_up(tags: int, centre: float = 5.0, spread: float = 2.0) -> Floats:
    return np.random.default_rng(1).normal(centre, spread, (48, tags))


def learn(positive: Bools, lift: float = 4.0, pictures: Floats | None = None) -> list[TextTag]:
    """Texts that name a tag score higher on it, on a level of their own."""
    scores = np.random.default_rng(0).normal(100.0, 1.0, positive.shape) + lift * positive
    pictures = made_up(positive.shape[1]) if pictures is None else pictures
    found = list(tags_from_texts(scores, positive, pictures))
    ProbabilityMaps.of([tag.probability for tag in found])
    assert all(np.isfinite(tag.threshold.on) for tag in found)
    assert all(len(tag.probability["scores"]) <= 33 for tag in found)
    return found


def probability(tag: TextTag, score: float) -> float:
    return float(np.interp(score, tag.probability["scores"], tag.probability["probabilities"]))


def log_loss(chances: Floats, has: Bools) -> float:
    return float(-np.log(np.where(has, chances, 1 - chances)).mean())


def test_thresholds_are_good_for_pictures_that_score_where_the_made_up_ones_said() -> None:
    random = np.random.default_rng(2)
    positive = random.random((400, 6)) < 0.1
    pictures = random.normal(5.0, 2.0, (2000, 6))
    has = random.random(pictures.shape) < 0.1
    pictures[has] += 7.0
    found = learn(positive)
    f1 = f1_scores(
        pictures, np.where(has, 1, -1).astype(np.int8), np.array([t.threshold.on for t in found])
    )
    assert f1.min() > 0.7
    chances = np.stack(
        [
            np.interp(column, tag.probability["scores"], tag.probability["probabilities"])
            for column, tag in zip(pictures.T, found, strict=True)
        ],
        axis=1,
    )
    assert has[chances > 0.8].mean() > 0.8
    assert has[chances < 0.2].mean() < 0.2
    rate = has.mean()
    assert log_loss(chances, has) < log_loss(np.full(has.shape, rate), has) / 3


def test_the_map_rises_and_the_band_lies_where_it_passes_its_two_levels() -> None:
    for tag in learn(named_by((20, 60))):
        low, high = tag.probability["band"]
        assert low < tag.threshold.on < high
        assert tag.threshold.off <= tag.threshold.on
        assert probability(tag, low) == pytest.approx(0.2, abs=0.03)
        assert probability(tag, high) == pytest.approx(0.8, abs=0.03)
        assert tag.probability["state"] == "from texts"


def test_a_tag_that_texts_name_more_often_needs_less_of_a_score() -> None:
    often, seldom = learn(named_by((100, 5)))
    assert often.threshold.on < seldom.threshold.on
    assert (often.named, seldom.named) == (100, 5)
    assert probability(often, 11.0) > probability(seldom, 11.0)


def test_the_scores_of_texts_move_no_threshold_and_those_of_made_up_pictures_do() -> None:
    positive = named_by((20, 60))
    assert [t.threshold for t in learn(positive, 0.5)] == [t.threshold for t in learn(positive)]
    moved = learn(positive, pictures=10 * made_up(2) + 1)
    for before, after in zip(learn(positive), moved, strict=True):
        assert after.threshold.on == pytest.approx(10 * before.threshold.on + 1)
        assert after.probability["band"] == pytest.approx(
            [10 * end + 1 for end in before.probability["band"]]
        )


def test_a_tag_that_no_text_names_takes_the_usual_rate_and_says_so() -> None:
    usual, _, unnamed = learn(named_by((30, 0, 0)))
    assert unnamed.probability["expected_share"] == pytest.approx(30 / 600, rel=0.02)
    assert usual.probability["expected_share"] > unnamed.probability["expected_share"]
    assert unnamed.threshold.source == "from texts, all tags"
    assert usual.threshold.source == "from texts"
    assert (usual.sureness, unnamed.sureness) == ("medium", "low")


def test_sure_is_never_high_and_low_with_few_texts_or_where_texts_are_not_parted() -> None:
    positive = named_by((9, 10, 100, 191, 200))
    assert [tag.sureness for tag in learn(positive)] == ["low", "medium", "medium", "low", "low"]
    assert {tag.sureness for tag in learn(positive, 0.0)} == {"low"}
    assert {tag.sureness for tag in learn(positive, -4.0)} == {"low"}


def test_texts_that_say_next_to_nothing() -> None:
    (one,) = learn(np.ones((1, 1), bool))
    assert one.sureness == "low"
    assert 0 < one.probability["expected_share"] < 1
    every = learn(np.ones((40, 3), bool))
    assert all(0.5 < tag.probability["expected_share"] < 1 for tag in every)
    constant = tags_from_texts(np.zeros((40, 2)), named_by((12, 20), 40), np.full((48, 2), 3.0))
    assert {tag.sureness for tag in constant} == {"low"}
    assert all(tag.threshold.on == pytest.approx(3.0, abs=1e-3) for tag in constant)
    ProbabilityMaps.of([tag.probability for tag in constant])


@pytest.mark.parametrize("where", ["texts", "made-up pictures"])
def test_scores_that_are_not_finite_are_refused(where: str) -> None:
    texts, pictures = np.zeros((40, 2)), made_up(2)
    (texts if where == "texts" else pictures)[0, 1] = np.nan
    with pytest.raises(InputError, match=f"the {where}' scores holds 1 values that are not finite"):
        tags_from_texts(texts, named_by((12, 20), 40), pictures)


def test_held_out_texts_cover_tags_and_leave_most_to_training() -> None:
    labels = [(0,)] * 100 + [(1,)] * 12 + [(2,)] * 3
    train, held = split_held_out(labels, 3, 0.1, seed=0)
    assert sorted([*train, *held]) == list(range(115))
    counts = np.bincount([labels[row][0] for row in held], minlength=3)
    assert counts[1] >= 3
    assert counts[2] <= 1
    again = split_held_out(labels, 3, 0.1, seed=0)
    assert np.array_equal(again[1], held)
    assert not np.array_equal(split_held_out(labels, 3, 0.1, seed=1)[1], held)
    assert len(split_held_out(labels, 3, 0.0, seed=0)[1]) == 0

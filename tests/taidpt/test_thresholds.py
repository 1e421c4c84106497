"""Held-out texts and thresholds on cases done by hand."""

from __future__ import annotations

import numpy as np

from taidpt.thresholds import best_threshold, split_held_out, thresholds_from_texts


def test_the_best_threshold_by_hand() -> None:
    scores = np.array([3.0, 2.0, 1.0, 0.0])
    on, off = best_threshold(scores, np.array([True, True, False, False]))
    assert (on, off) == (1.5, 1.5)
    # F1 by cut: 2/4, 2/5, 4/6, 4/7: the third is best
    assert best_threshold(scores, np.array([True, False, True, False]))[0] == 0.5


def test_equal_scores_are_never_parted() -> None:
    scores = np.array([1.0, 1.0, 1.0, 0.0])
    assert best_threshold(scores, np.array([True, False, False, False]))[0] == 0.5


def test_off_is_lower_where_that_costs_little() -> None:
    scores = np.arange(100.0)[::-1]
    positive = scores >= 50
    on, off = best_threshold(scores, positive)
    assert on == 49.5
    predicted = int((scores >= off).sum())
    assert off < on
    assert 2 * 50 / (predicted + 50) >= 0.95 > 2 * 50 / (predicted + 1 + 50)


def test_tags_without_held_out_texts_take_the_common_threshold() -> None:
    scores = np.array([[3.0, 0.0], [1.0, 0.5]])
    found = thresholds_from_texts(scores, np.array([[True, False], [False, False]]))
    assert [item.source for item in found] == ["from texts", "from texts, all tags"]
    assert found[0].on == found[1].on == 2.0


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

"""Metrics against hand-computed cases and scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from taidpt.metrics import (
    MapSettings,
    mean_average_precision,
    precision_recall,
    top_k_predictions,
)
from taidpt.runtime.errors import InputError


def column(*values: float) -> np.ndarray:
    return np.asarray(values)[:, None]


def test_average_precision_by_hand() -> None:
    scores = column(0.9, 0.8, 0.7, 0.6, 0.5)
    targets = column(1, -1, 1, -1, 1).astype(int)
    # Positives at ranks 1, 3, 5: (1/1 + 2/3 + 3/5) / 3.
    assert mean_average_precision(scores, targets).value == pytest.approx(100 * 34 / 45)


def test_eleven_points_by_hand() -> None:
    scores = column(0.9, 0.8, 0.7, 0.6)
    targets = column(1, -1, 1, -1).astype(int)
    # Recall 0.5 at precision 1 (levels 0 … 0.5: six), recall 1 at precision 2/3 (five levels).
    found = mean_average_precision(scores, targets, MapSettings(interpolation="11point"))
    assert found.value == pytest.approx(100 * (6 * 1 + 5 * 2 / 3) / 11)


def test_ties_keep_file_order() -> None:
    targets = column(1, -1).astype(int)
    assert mean_average_precision(column(0.5, 0.5), targets).value == pytest.approx(100)
    assert mean_average_precision(column(0.5, 0.5), targets[::-1]).value == pytest.approx(50)


def test_difficult_counts_as_negative_or_not_at_all() -> None:
    scores, targets = column(0.9, 0.8), column(0, 1).astype(int)
    assert mean_average_precision(scores, targets).value == pytest.approx(50)
    ignoring = MapSettings(difficult="ignore")
    assert mean_average_precision(scores, targets, ignoring).value == pytest.approx(100)


def test_a_class_without_positives_is_skipped_or_zero_and_always_named() -> None:
    scores = np.array([[0.9, 0.1], [0.1, 0.9]])
    targets = np.array([[1, -1], [-1, -1]])
    found = mean_average_precision(scores, targets)
    assert (found.value, found.empty) == (pytest.approx(100), (1,))
    assert np.isnan(found.per_class[1])
    zero = mean_average_precision(scores, targets, MapSettings(empty_class="zero"))
    assert zero.value == pytest.approx(50)


def test_equal_to_scikit_learn_without_ties() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(300, 7))
    targets = np.where(generator.random((300, 7)) < 0.1, 1, -1)
    ours = mean_average_precision(scores, targets)
    theirs = [average_precision_score(targets[:, c] > 0, scores[:, c]) for c in range(7)]
    np.testing.assert_allclose(ours.per_class, 100 * np.array(theirs), rtol=1e-12)


def test_precision_and_recall_by_hand_and_by_scikit_learn() -> None:
    predicted = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0]], bool)
    targets = np.array([[1, -1, -1], [-1, 1, -1], [-1, 1, 1]])
    found = precision_recall(predicted, targets)
    # Class 0: 1 of 2 said, 1 of 1 there; class 1: 1 of 2, 1 of 2; class 2: never said, 0 of 1.
    assert found.class_precision == pytest.approx(100 / 3)
    assert found.class_recall == pytest.approx(50)
    assert found.class_f1 == pytest.approx(40)
    assert found.overall_precision == pytest.approx(50)
    assert found.overall_recall == pytest.approx(50)
    theirs = f1_score(targets > 0, predicted, average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(100 * theirs)
    two = precision_recall(predicted, targets, classes=[0, 1])
    assert two.class_recall == pytest.approx(75)


def test_top_k_takes_k_of_each_row() -> None:
    scores = np.array([[0.1, 0.3, 0.3, 0.2], [4.0, 3.0, 2.0, 1.0]])
    expected = [[False, True, True, False], [True, True, False, False]]
    assert top_k_predictions(scores, 2).tolist() == expected


@pytest.mark.parametrize(
    ("scores", "targets", "expected"),
    [
        (np.zeros((3, 2)), np.ones((3, 1), int), r"scores \(3, 2\) and targets \(3, 1\)"),
        (np.array([[0.0], [np.nan]]), np.ones((2, 1), int), "1 scores are NaN, the first at row 1"),
        (np.zeros((2, 1)), np.array([[1], [2]]), "targets should be 1, 0 or −1"),
    ],
)
def test_bad_matrices_are_named(scores: np.ndarray, targets: np.ndarray, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        mean_average_precision(scores, targets)


def test_unknown_definitions_are_named() -> None:
    with pytest.raises(InputError, match="interpolation '12point'"):
        MapSettings(interpolation="12point")

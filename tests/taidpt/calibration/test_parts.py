"""The parts of calibration against hand-computed cases and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from taidpt.calibration.statistics.hierarchy import explained
from taidpt.calibration.statistics.mixture import NormalPrior, fit_tags, log_parts
from taidpt.calibration.statistics.sample import Sample, compress
from taidpt.calibration.statistics.switch import choose_switches
from taidpt.judging.baselines import (
    best_single_threshold,
    otsu_thresholds,
    two_gaussians,
)
from taidpt.judging.measures import (
    best_f1_thresholds,
    expected_calibration_error,
    f1_scores,
)
from tests.taidpt.calibration.simulator import Size, simulate


def test_f1_by_hand_leaves_out_the_difficult() -> None:
    scores = np.array([[0.9], [0.8], [0.7], [0.1]])
    targets = np.array([[1], [0], [-1], [1]], np.int8)
    assert f1_scores(scores, targets, np.array([0.5]))[0] == pytest.approx(0.5)
    assert best_f1_thresholds(scores, targets)[0] == pytest.approx(0.1)
    assert f1_scores(scores, targets, np.array([0.1]))[0] == pytest.approx(0.8)


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.75], [0.75], [0.25], [0.25]])
    targets = np.array([[1], [-1], [-1], [-1]], np.int8)
    assert expected_calibration_error(probabilities, targets, bins=2) == pytest.approx(0.25)


def test_baselines_part_two_heaps() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(0, 0.1, 300), random.normal(2, 0.1, 200)])[:, None]
    targets = np.where(np.arange(500) >= 300, 1, -1).astype(np.int8)[:, None]
    for cut in (
        otsu_thresholds(values),
        two_gaussians(values),
        best_single_threshold(values, targets),
    ):
        assert f1_scores(values, targets, cut)[0] == pytest.approx(1.0)


def test_two_gaussians_follow_a_change_of_units() -> None:
    scores = simulate("shifted", 5, Size(300, 2)).merged()
    np.testing.assert_allclose(
        two_gaussians(1e-6 * scores), 1e-6 * two_gaussians(scores), rtol=1e-3
    )


def test_both_pieces_are_densities() -> None:
    grid = np.linspace(-400, 400, 800_001)[None]
    theta = np.array([[0.3, -0.2, 0.4, 3.1, 0.2, -2.0, np.log(4.0), 0.3]])
    for part, _ in log_parts(theta, grid):
        assert np.exp(part[0]).sum() * 1e-3 == pytest.approx(1.0, abs=1e-4)


def test_gradient_of_the_likelihood_against_finite_differences() -> None:
    from taidpt.calibration.statistics.mixture import _likelihood

    random = np.random.default_rng(1)
    theta = 0.5 * random.standard_normal((3, 8)) + [0, 0, 0, 1, 0, 0, 2, 0]
    values = 3 * random.standard_normal((3, 9))
    slope = _likelihood(theta, values)[1]
    for column in range(8):
        step = np.zeros(8)
        step[column] = 1e-6
        high, low = _likelihood(theta + step, values)[0], _likelihood(theta - step, values)[0]
        np.testing.assert_allclose(slope[:, column], (high - low) / 2e-6, atol=1e-7)


def test_a_tag_is_fitted_as_if_it_were_alone() -> None:
    """Under one prior: in blocks of tags, and whichever of the others still move."""
    random = np.random.default_rng(2)
    scores = random.standard_normal((300, 40)) + 3.0 * (random.random((300, 40)) < 0.1)
    sample, prior = compress(scores), NormalPrior(np.zeros(8), np.diag(np.full(8, 4.0)))
    start = np.zeros((40, 8))
    together = fit_tags(sample, start, prior)
    for tag in (0, 17, 39):
        alone = fit_tags(sample.of_tags(np.array([tag])), start[:1], prior)
        np.testing.assert_allclose(together.parameters[tag], alone.parameters[0], atol=1e-8)
        assert alone.log_posterior[0] > fit_tags(sample, start, prior, steps=1).log_posterior[tag]


@pytest.mark.parametrize("frames", [5, 256, 257, 3001])
def test_compressing_keeps_weight_mean_and_ends(frames: int) -> None:
    scores = np.random.default_rng(2).normal(size=(frames, 3))
    sample = compress(scores)
    np.testing.assert_allclose(sample.counts.sum(1), frames)
    np.testing.assert_allclose((sample.values * sample.counts).sum(1), scores.sum(0), atol=1e-9)
    np.testing.assert_array_equal(sample.values[:, -1], scores.max(0))
    assert (np.diff(sample.values, axis=1) >= 0).all()


def test_decision_by_hand() -> None:
    sample = Sample(np.array([[0.0, 1.0, 2.0, 3.0]]), np.ones((1, 4)))
    decision = choose_switches(sample, np.array([[0.0, 0.0, 1.0, 1.0]]))[0]
    assert decision.on == pytest.approx(1.5)
    assert decision.expected_f1 == pytest.approx(1.0)
    assert decision.expected_sightings == pytest.approx(2.0)


@pytest.mark.parametrize(("highest", "seen"), [(0.6, True), (0.41, True), (0.39, False)])
def test_a_tag_is_seen_where_some_frame_is_likely_to_have_it(highest: float, seen: bool) -> None:
    sample = Sample(np.arange(100.0)[None], np.ones((1, 100)))
    for probabilities in (np.append(np.zeros(99), highest), np.full(100, highest)):
        assert choose_switches(sample, probabilities[None])[0].seen is seen


def test_many_frames_with_hardly_a_chance_each_are_no_sign() -> None:
    sample = Sample(np.arange(4.0)[None], np.full((1, 4), 1e4))
    decision = choose_switches(sample, np.full((1, 4), 1e-4))[0]
    assert decision.expected_sightings == pytest.approx(4)
    assert not decision.seen


def test_one_hump_cut_in_two_explains_little_and_two_humps_explain_much() -> None:
    values = np.linspace(-4, 8, 200)[None]
    background = norm.pdf(values) + 0.2 * norm.pdf(values, 5.0)
    sample = Sample(values, 1e3 * background)
    cut = np.array([[-0.6, -0.3, -0.3, 0.6, 0.0, 0.0, 3.0, 0.0]])
    apart = np.array([[0.0, 0.0, 0.0, 5.0, 0.0, -1.6, 3.0, 0.0]])
    assert explained(cut, sample)[0] < 0.6
    assert explained(apart, sample)[0] > 0.9


def test_best_single_threshold_leaves_out_the_difficult() -> None:
    scores = np.array([[0.1, 0.2], [0.5, 0.9], [0.6, 0.8], [0.95, 0.1]])
    targets = np.array([[-1, -1], [1, 1], [1, 1], [0, -1]], np.int8)
    cut = best_single_threshold(scores, targets)
    assert np.nanmean(f1_scores(scores, targets, cut)) == pytest.approx(1.0)

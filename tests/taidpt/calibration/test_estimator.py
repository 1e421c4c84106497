"""Thresholds from scores alone: the goal, what must not matter, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from taidpt.calibration.statistics import hierarchy
from taidpt.calibration.statistics.estimator import calibrate
from taidpt.judging.baselines import best_single_threshold
from taidpt.judging.measures import expected_calibration_error, f1_scores, false_on_rate
from taidpt.judging.report import compare
from taidpt.runtime.errors import InputError
from tests.taidpt.calibration.simulator import FAMILIES, Size, simulate

SIZE = Size(frames=1200, tags=16)


@pytest.mark.parametrize("family", ["shifted", "skewed", "heteroscedastic", "common", "mixed"])
def test_reaches_the_best_single_labelled_threshold(family: str) -> None:
    matrix = simulate(family, 200, SIZE)
    scores, targets = matrix.merged(), matrix.targets
    assert targets is not None
    learned = calibrate(scores)
    ours = np.nanmean(f1_scores(scores, targets, learned.on))
    single = np.nanmean(f1_scores(scores, targets, best_single_threshold(scores, targets)))
    assert ours >= single
    assert expected_calibration_error(learned.probabilities(scores), targets) < 0.06


@pytest.mark.parametrize("family", ["absent", "plain", "shifted", "weak", "photos, level"])
def test_tags_that_never_occur_are_recognised_and_stay_off(family: str) -> None:
    absent, present, false_on = [], [], []
    for seed in (200, 201, 202):
        matrix = simulate(family, seed, Size(2000, 24, absent=0.25))
        scores, targets = matrix.merged(), matrix.targets
        assert targets is not None
        learned = calibrate(scores)
        occurs = (targets > 0).any(axis=0)
        called_absent = np.array([tag.state == "not seen" for tag in learned.tags])
        absent.append(called_absent[~occurs].mean())
        present.append(called_absent[occurs].mean())
        false_on.append(false_on_rate(scores, targets, learned.on))
    assert np.mean(absent) >= 0.8
    assert np.mean(present) <= 0.05
    assert np.mean(false_on) <= 0.015  # one frame in a hundred, or the tag's expected share


@pytest.mark.parametrize("family", ["skewed", "heavy-tailed", "mixed"])
def test_a_tag_that_never_occurs_and_is_taken_for_a_rare_one_is_not_called_sure(
    family: str,
) -> None:
    taken = []
    for seed in (200, 201, 202):
        matrix = simulate(family, seed, Size(2000, 24, absent=0.25))
        assert matrix.targets is not None
        learned = calibrate(matrix.merged())
        never = np.flatnonzero(~(matrix.targets > 0).any(axis=0))
        taken += [learned.tags[tag].sureness for tag in never if learned.tags[tag].state == "seen"]
    assert taken
    assert "high" not in taken
    assert taken.count("low") >= 0.8 * len(taken)


@pytest.mark.parametrize("seed", [6001, 1501])
def test_one_hump_is_not_cut_in_two(seed: int) -> None:
    matrix = simulate("photos, uneven", seed, Size(1000, 30, absent=0.2))
    scores, targets = matrix.merged(), matrix.targets
    assert targets is not None
    never = ~(targets > 0).any(axis=0)
    often = (scores >= calibrate(scores).on)[:, never].mean(axis=0) > 0.05
    assert often.sum() <= 1


def test_most_tags_of_a_weak_model_are_not_put_into_many_frames() -> None:
    random = np.random.default_rng(1)
    frames, tags = 500, 80
    shares = np.exp(random.normal(np.log(0.008), 1.2, tags)).clip(0, 0.5)
    present = random.random((frames, tags)) < shares
    lifts = random.normal(2.3, 0.8, tags)
    scenes = random.standard_normal((frames, 6)) @ random.standard_normal((6, tags)) / 6**0.5
    leaning = (random.gamma(12, size=(frames, tags)) - 12) / 12**0.5
    scores = 0.7 * scenes + 0.7 * leaning + present * lifts
    on = scores >= calibrate(scores).on
    assert 0.5 < on.sum() / present.sum() < 2


def test_no_tag_is_sure_of_fewer_frames_than_tags() -> None:
    scores = simulate("plain", 208, Size(30, 40)).merged()
    assert {tag.sureness for tag in calibrate(scores).tags} == {"low"}


def test_scores_pressed_flat_by_a_sigmoid_are_read_as_before_it() -> None:
    matrix = simulate("plain", 207, SIZE)
    scores, targets = matrix.merged(), matrix.targets
    assert targets is not None
    pressed = 1 / (1 + np.exp(-60 * (scores - 1.0)))
    assert ((pressed < 0.02) | (pressed > 0.98)).mean() > 0.5
    before, after = (
        np.nanmean(f1_scores(values, targets, calibrate(values).on)) for values in (scores, pressed)
    )
    assert after >= before - 0.02


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_log_softmax_that_presses_tags_down_costs_nothing_more_than_it_must(
    temperature: float,
) -> None:
    random = np.random.default_rng(1)
    present = random.random((600, 16)) < 0.12
    lifts = 8 * np.where(random.random(present.shape) < 0.5, 0.5, 1)
    scores = temperature * (random.standard_normal(present.shape) + lifts * present)
    logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    targets = np.where(present, 1, -1).astype(np.int8)
    ours = np.nanmean(f1_scores(logs, targets, calibrate(logs).on))
    slider = np.nanmean(f1_scores(logs, targets, best_single_threshold(logs, targets)))
    assert ours >= slider  # read as log odds, as before, 0.0 to 0.7 of 0.7 to 0.8


def test_a_tag_without_a_sign_is_on_in_three_frames_of_two_hundred_at_most() -> None:
    scores = simulate("absent", 206, SIZE).merged()
    learned = calibrate(scores)
    frames_on = (scores >= learned.on).mean(axis=0)
    silent = np.array([tag.state == "not seen" for tag in learned.tags])
    assert silent.any()
    assert frames_on[silent].max() <= 0.016


def test_without_any_sure_tag_a_tag_without_a_sign_is_on_in_no_frame() -> None:
    scores = np.random.default_rng(0).standard_normal((600, 8))
    learned = calibrate(scores)
    silent = np.array([tag.state == "not seen" for tag in learned.tags])
    assert silent.all()
    assert not (scores >= learned.on)[:, silent].any()


@pytest.mark.parametrize("kind", ["normal", "t", "gamma", "Laplace"])
def test_noise_shows_no_tag(kind: str) -> None:
    random = np.random.default_rng(5)
    scores = {
        "normal": random.standard_normal((600, 8)),
        "t": np.random.default_rng(5).standard_t(5, (600, 12)),
        "gamma": np.random.default_rng(5).gamma(4, size=(300, 10)),
        "Laplace": np.random.default_rng(5).laplace(size=(400, 8)),
    }[kind]
    learned = calibrate(scores)
    assert {tag.state for tag in learned.tags} == {"not seen"}
    assert not (scores >= learned.on).any()


def test_is_the_same_again_and_follows_a_change_of_units() -> None:
    scores = simulate("shifted", 201, Size(600, 8)).merged()
    first, again = calibrate(scores), calibrate(scores)
    moved = calibrate(scores * 10 - 3)
    assert first == again
    np.testing.assert_allclose(moved.on, first.on * 10 - 3, rtol=1e-6)


def test_does_not_depend_on_the_order_of_frames() -> None:
    scores = simulate("plain", 202, Size(600, 8)).merged()
    order = np.random.default_rng(0).permutation(len(scores))
    assert calibrate(scores) == calibrate(scores[order])


def test_maps_rise_and_thresholds_are_ordered() -> None:
    learned = calibrate(simulate("heavy-tailed", 203, Size(600, 8)).merged())
    for tag in learned.tags:
        assert (np.diff(tag.scores) > 0).all()
        assert (np.diff(tag.probabilities) >= 0).all()
        assert 0 <= tag.probabilities[0] <= tag.probabilities[-1] <= 1
        assert tag.off <= tag.on
        assert tag.band[0] <= tag.band[1]


def test_one_tag_alone_and_twenty_frames_are_enough_to_run() -> None:
    scores = simulate("plain", 204, Size(20, 1)).merged()
    learned = calibrate(scores)
    assert len(learned.tags) == 1
    assert np.isfinite(learned.on).all()


def test_constant_scores_stay_off_and_leave_the_others_alone() -> None:
    scores = simulate("plain", 205, Size(600, 6)).merged()
    scores[:, 2] = 0.5
    learned = calibrate(scores)
    assert learned.tags[2].state == "constant"
    assert learned.tags[2].on > 0.5
    assert learned.tags[0] == calibrate(np.delete(scores, 2, axis=1)).tags[0]


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-3])
def test_copies_of_one_frame_are_refused(noise: float) -> None:
    random = np.random.default_rng(0)
    scores = random.standard_normal(20) + noise * random.standard_normal((40, 20))
    with pytest.raises(InputError, match="copies of 1"):
        calibrate(scores)


def test_copies_count_once() -> None:
    scores = simulate("plain", 209, Size(100, 12)).merged()
    once, often = calibrate(scores), calibrate(np.repeat(scores, 5, axis=0))
    assert (once.effective_frames, often.effective_frames) == (100, 100)
    assert [tag.sureness for tag in often.tags] == [tag.sureness for tag in once.tags]


def test_a_sample_without_any_tag_teaches_nothing() -> None:
    learned = calibrate(np.random.default_rng(3).standard_normal((400, 8)))
    assert not any(tag.learned for tag in learned.tags if tag.state == "not seen")


def test_unsure_tags_of_a_poor_sample_are_not_learned() -> None:
    scores = simulate("plain", 211, Size(600, 8)).merged()
    rich, poor = calibrate(scores), calibrate(scores, effective_frames=12.0)
    assert all(tag.learned for tag in rich.tags)
    assert all(tag.learned == (tag.sureness != "low") for tag in poor.tags)
    assert not all(tag.learned for tag in poor.tags)


def test_scores_of_a_few_levels_do_not_break_it() -> None:
    scores = np.random.default_rng(0).integers(0, 3, (200, 4)).astype(float)
    assert np.isfinite(calibrate(scores).on).all()


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        (np.zeros((1, 3)), "too few"),
        (np.zeros((0, 3)), "at least one"),
        (np.full((50, 3), np.nan), "not finite"),
        (np.zeros(50), "at least one"),
    ],
)
def test_bad_scores_are_refused(scores: np.ndarray, word: str) -> None:
    with pytest.raises(InputError, match=word):
        calibrate(scores)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_draws_the_same_again(family: str) -> None:
    first, again = simulate(family, 3, Size(60, 12)), simulate(family, 3, Size(60, 12))
    np.testing.assert_array_equal(first.global_scores, again.global_scores)
    assert np.isfinite(first.merged()).all()
    assert not np.array_equal(first.merged(), simulate(family, 4, Size(60, 12)).merged())


def test_a_prior_learned_from_half_of_the_tags_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = simulate("photos", 212, Size(500, 60, absent=0.2))
    scores, targets = matrix.merged(), matrix.targets
    assert targets is not None
    everyone = compare(scores, targets, calibrate(scores))
    monkeypatch.setattr(hierarchy, "_TEACHERS", 30)
    half = compare(scores, targets, calibrate(scores))
    assert half.ours != everyone.ours
    assert half.ours > max(everyone.ours - 0.02, half.single)
    assert half.recognised > 0.8

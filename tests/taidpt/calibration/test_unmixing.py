"""What other tags say of a tag's score, against brute force and against made-up scenes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from taidpt.calibration.statistics.unmixing import are_echoes, unexplained, without_others

Floats = npt.NDArray[np.float64]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(1)


def foretold(scores: Floats, frame: int, tag: int, penalty: float) -> float:
    """One value by a ridge regression on the other tags in the other frames, its mean free."""
    others, rest = np.arange(scores.shape[1]) != tag, np.arange(len(scores)) != frame
    known = np.column_stack([np.ones(rest.sum()), scores[rest][:, others]])
    shrink = penalty * np.eye(known.shape[1])
    shrink[0, 0] = 0.0
    weights = np.linalg.solve(known.T @ known + shrink, known.T @ scores[rest, tag])
    return float(np.append(1.0, scores[frame, others]) @ weights)


@pytest.mark.parametrize(("frames", "tags"), [(30, 12), (12, 30)])
def test_what_is_left_is_what_other_frames_do_not_foretell(
    random: np.random.Generator, frames: int, tags: int
) -> None:
    scores = random.standard_normal((frames, tags)) + random.standard_normal((frames, 1))
    rest = unexplained(scores)
    assert rest is not None
    standard = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    ridges = [frames * ridge / (1 - ridge) for ridge in (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)]
    by_hand = [standard[3, 4] - foretold(standard, 3, 4, penalty) for penalty in ridges]
    assert np.abs(np.array(by_hand) - rest[3, 4]).min() < 1e-9


def test_few_frames_of_many_unrelated_tags_explain_nothing(random: np.random.Generator) -> None:
    assert unexplained(random.standard_normal((40, 60))) is None
    assert unexplained(random.standard_normal((40, 1))) is None


def test_tags_that_are_there_independently_are_no_echoes(random: np.random.Generator) -> None:
    present = random.random((200, 30)) < 0.1
    assert not are_echoes(present.astype(float))
    moods = random.random((200, 3)) < 0.2
    echoes = np.where(moods[:, random.integers(0, 3, 30)], 0.8, 0.1)
    assert are_echoes(echoes + 0.05 * random.standard_normal(echoes.shape))
    assert not are_echoes(np.full((200, 30), 0.1))


@pytest.mark.parametrize("presence_alone", [False, True])
def test_a_neighbour_that_lifts_a_tag_is_taken_away(
    random: np.random.Generator, presence_alone: bool
) -> None:
    present = random.random((3000, 3)) < 0.2
    scores = random.standard_normal((3000, 3)) + 4.0 * present
    scores[:, 0] += 3.0 * present[:, 1]
    rest = without_others(scores, present.astype(float), presence_alone)
    lifted = present[:, 1] & ~present[:, 0]
    plain = ~present[:, 1] & ~present[:, 0]
    assert abs(rest[lifted, 0].mean() - rest[plain, 0].mean()) < 0.2
    assert rest[present[:, 0], 0].mean() - rest[~present[:, 0], 0].mean() > 3.5


@pytest.mark.parametrize("tags", [6, 40])
def test_frames_without_their_mean_seem_to_explain_no_more(
    random: np.random.Generator, tags: int
) -> None:
    scores = random.standard_normal((400, tags))
    assert unexplained(scores - scores.mean(axis=1, keepdims=True)) is None
    scores[:, : tags // 2] += 3.0 * random.standard_normal((400, 1))
    assert unexplained(scores - scores.mean(axis=1, keepdims=True)) is not None

"""A handful of labels: read from a file, and what they do to thresholds, however chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from taidpt.calibration.statistics.estimator import calibrate
from taidpt.calibration.statistics.few_labels import refine
from taidpt.judging.measures import expected_calibration_error, f1_scores
from taidpt.label_file import LabelFile
from taidpt.runtime.errors import InputError
from tests.taidpt.calibration.simulator import Size, simulate

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]


def test_labels_pull_a_threshold_the_right_way() -> None:
    matrix = simulate("weak", 7, Size(800, 6))
    assert matrix.targets is not None
    scores = matrix.merged()
    before = calibrate(scores)
    labels = np.zeros(scores.shape, np.int8)
    low = np.argsort(np.abs(scores[:, 0] - before.tags[0].on))[:40]
    labels[low, 0] = 1
    after = refine(before, scores, labels)
    assert after.tags[0].on < before.tags[0].on
    assert after.tags[1:] == before.tags[1:]


def test_one_positive_of_a_tag_that_was_not_seen_makes_it_seen() -> None:
    matrix = simulate("plain", 8, Size(2000, 24, absent=0.25))
    assert matrix.targets is not None
    scores = matrix.merged()
    before = calibrate(scores)
    assert before.tags[-1].state == "not seen"
    labels = np.zeros(scores.shape, np.int8)
    labels[int(scores[:, -1].argmax()), -1] = 1
    assert refine(before, scores, labels).tags[-1].state == "seen"


def test_a_tag_that_is_not_there_is_not_switched_on_by_being_told_so() -> None:
    scores = simulate("plain", 8, Size(2000, 24, absent=0.25)).merged()
    before = calibrate(scores)
    labels = np.zeros(scores.shape, np.int8)
    labels[int(scores[:, -1].argmax()), -1] = -1
    after = refine(before, scores, labels).tags[-1]
    assert after.state == "not seen"
    assert (after.on, after.off, after.expected_f1) == (before.tags[-1].on, before.tags[-1].off, 0)


def test_many_labels_bend_the_map_towards_the_truth() -> None:
    matrix = simulate("weak", 8, Size(2000, 6))
    assert matrix.targets is not None
    scores = matrix.merged()
    labels = matrix.targets.copy()
    labels[1000:] = 0
    before = calibrate(scores)
    after = refine(before, scores, labels)
    rest = slice(1000, None)
    errors = [
        expected_calibration_error(one.probabilities(scores)[rest], matrix.targets[rest])
        for one in (before, after)
    ]
    assert errors[1] < max(errors[0], 0.03)


def _macro_f1(
    scores: npt.NDArray[np.float64], targets: Labels, on: npt.NDArray[np.float64]
) -> float:
    return float(np.nanmean(f1_scores(scores, targets, on)))


@pytest.mark.parametrize(("having", "lacking"), [(1, 0), (3, 0), (10, 0), (3, 3), (10, 10)])
def test_labels_that_were_looked_for_do_not_make_thresholds_worse(
    having: int, lacking: int
) -> None:
    changes = []
    for family in ("shifted", "weak", "common"):
        matrix = simulate(family, 210, Size(800, 12))
        scores, targets = matrix.merged(), matrix.targets
        assert targets is not None
        random = np.random.default_rng(0)
        labels = np.zeros_like(targets)
        for tag, column in enumerate(targets.T):
            for sign, count in ((1, having), (-1, lacking)):
                labels[random.permutation(np.flatnonzero(column == sign))[:count], tag] = sign
        before = calibrate(scores)
        after = refine(before, scores, labels)
        assert after.on.tolist() != before.on.tolist()
        changes.append(_macro_f1(scores, targets, after.on) - _macro_f1(scores, targets, before.on))
    assert np.mean(changes) > -0.015


def test_frames_that_were_looked_through_whole_make_thresholds_better() -> None:
    gains, errors = [], []
    for seed in range(205, 211):
        matrix = simulate("photos, uneven", seed, Size(800, 12))
        scores, targets = matrix.merged(), matrix.targets
        assert targets is not None
        labels = targets.copy()
        labels[np.random.default_rng(0).permutation(800)[100:]] = 0
        before = calibrate(scores)
        both = before, refine(before, scores, labels)
        gains.append(np.diff([_macro_f1(scores, targets, one.on) for one in both]))
        errors.append(
            [expected_calibration_error(one.probabilities(scores), targets) for one in both]
        )
    assert np.mean(gains) > 0.03
    assert np.diff(np.mean(errors, axis=0)) < 0


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("frame,tag\na,cat\n", "no column present"),
        ("", "no column frame, tag, present"),
        ("frame,tag,present\n", "holds no label"),
        ("frame,tag,present\nz,cat,1\n", "no frame 'z'"),
        ("frame,tag,present\na,cow,1\n", "no tag 'cow'"),
        ("frame,tag,present\na,cat,maybe\n", "line 2: present"),
        ("frame,tag,present\na,cat\n", "line 2: present"),
        ("frame,tag,present\na,cat,1\nb,cat,1\na,cat,0\n", "line 4: a is said to have 'cat'"),
    ],
)
def test_bad_labels_name_their_line(text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text(text)
    with pytest.raises(InputError, match=word):
        LabelFile.read(tmp_path / "few.csv", ("cat", "dog")).of(("a", "b"))


@pytest.mark.parametrize(
    "text",
    [
        "frame,tag,present\na,cat,1\nb,dog,0\n",
        "frame,tag,present\na,cat,1\nb,dog,0\na,cat,1\n",
        "\ufefftag;frame;present;who\r\ncat;a;1;me\r\ndog;b;0;\r\n",
    ],
)
def test_labels_are_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text(text, encoding="utf-8")
    labels = LabelFile.read(tmp_path / "few.csv", ("cat", "dog")).of(("a", "b"))
    np.testing.assert_array_equal(labels, [[1, 0], [0, -1]])


def test_a_label_of_a_name_that_two_frames_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("frame,tag,present\na,cat,1\n")
    with pytest.raises(InputError, match="several frames 'a'"):
        LabelFile.read(tmp_path / "few.csv", ("cat", "dog")).of(("a", "b", "a"))

"""Score files: conventions, the command's figures, ensembles, and bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from taidpt.evaluation.saved_scores import ScaledTransform, ensemble_scores, evaluate_scores
from taidpt.metrics import MapSettings, mean_average_precision
from taidpt.runtime.errors import InputError
from taidpt.score_file import ScoreFile
from taidpt.score_transforms import transform_scores

TARGETS = np.array([[1, -1], [0, 1], [-1, -1]])
GLOBAL = np.array([[0.8, 0.1], [0.9, 0.9], [0.1, 0.5]])
LOCAL = np.array([[0.9, 0.9], [0.1, 0.1], [0.2, 0.2]])


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.fixture
def score_path(tmp_path: Path) -> Path:
    arrays = {"targets": TARGETS, "global": GLOBAL, "local": LOCAL}
    return save(tmp_path / "scores.npz", **arrays)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "taidpt", "research", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_heads_by_hand(score_path: Path) -> None:
    found = evaluate_scores(ScoreFile.load(score_path)).heads
    # Global: class 0 has its positive at rank 2 behind a difficult one; class 1 at rank 1.
    assert found["global"].value == pytest.approx((50 + 100) / 2)
    # Local: class 0 at rank 1, class 1 at rank 3.
    assert found["local"].value == pytest.approx((100 + 100 / 3) / 2)
    # Merged: class 0 is 0.85 before 0.5; class 1 is 0.5, 0.5, 0.35, and the tie keeps file order.
    assert found["merged"].value == pytest.approx((100 + 50) / 2)


def test_difficult_can_be_left_out(score_path: Path) -> None:
    settings = MapSettings(difficult="ignore")
    found = evaluate_scores(ScoreFile.load(score_path), settings=settings).heads
    assert found["global"].value == pytest.approx(100)


def test_merge_weight_reaches_from_global_to_local(score_path: Path) -> None:
    scores = ScoreFile.load(score_path)
    for weight, head in ((0.0, "global"), (1.0, "local")):
        found = evaluate_scores(scores, weight).heads
        assert found["merged"].value == found[head].value
    with pytest.raises(InputError, match="merge weight"):
        evaluate_scores(scores, 1.5)


def test_ensemble_by_hand() -> None:
    text = ScoreFile(TARGETS, GLOBAL, GLOBAL, ("a", "b"))
    image = ScoreFile(TARGETS, LOCAL, LOCAL, ("a", "b"))
    combined = ensemble_scores(text, image, 0.25)
    expected = 0.75 * (GLOBAL - 0.1) / 0.8 + 0.25 * (LOCAL - 0.1) / 0.8
    np.testing.assert_allclose(combined.global_scores, expected)
    np.testing.assert_allclose(combined.merged(0.3), expected)
    with pytest.raises(InputError, match="constant"):
        ensemble_scores(text, ScoreFile(TARGETS, LOCAL * 0, LOCAL * 0, ("a", "b")), 0.5)
    with pytest.raises(InputError, match="infinite"):
        ensemble_scores(text, ScoreFile(TARGETS, LOCAL + np.inf, LOCAL, ("a", "b")), 0.5)
    other = ScoreFile(-TARGETS, LOCAL, LOCAL, ("a", "b"), "other.npz")
    with pytest.raises(InputError, match=r"other\.npz have different targets"):
        ensemble_scores(text, other, 0.5)


def test_the_image_file_may_have_a_merge_weight_of_its_own() -> None:
    text = ScoreFile(TARGETS, GLOBAL, LOCAL, ("a", "b"))
    image = ScoreFile(TARGETS, LOCAL, GLOBAL * [1, 2], ("a", "b"))
    alone = ScoreFile(TARGETS, GLOBAL * [1, 2], GLOBAL * [1, 2], ("a", "b"))
    expected = ensemble_scores(text, alone, 0.4, 0.3).merged()
    np.testing.assert_allclose(ensemble_scores(text, image, 0.4, 0.3, 1.0).merged(), expected)
    assert not np.allclose(ensemble_scores(text, image, 0.4, 0.3).merged(), expected)


@pytest.mark.parametrize("text", ["none", "center", "log_softmax", "log_softmax:4", "center:0.5"])
def test_a_transform_is_applied_to_every_head(text: str) -> None:
    name, _, factor = text.partition(":")
    scores = np.random.default_rng(0).normal(size=(3, 40, 5))
    targets = np.where(scores[0] > 0.5, 1, -1).astype(np.int8)
    file = ScoreFile(targets, scores[1], scores[2], tuple("abcde"))
    found = evaluate_scores(file, 0.25, transform=ScaledTransform.parse(text))
    raw = {"global": scores[1], "local": scores[2], "merged": 0.75 * scores[1] + 0.25 * scores[2]}
    for head, matrix in raw.items():
        expected = transform_scores(float(factor or 1) * matrix, name)
        assert found.heads[head].value == mean_average_precision(expected, targets).value
    assert found.to_json()["score_transform"] == text


@pytest.mark.parametrize(
    "text", ["", "softmax", "log_softmax:", "log_softmax:0", "center:x", "none:inf"]
)
def test_unknown_transforms_are_one_line(text: str) -> None:
    with pytest.raises(InputError, match="such as log_softmax:4"):
        ScaledTransform.parse(text)


def test_commands_print_three_decimals(score_path: Path, tmp_path: Path) -> None:
    json_path = tmp_path / "out.json"
    done = run("eval", "--scores", str(score_path), "--json", str(json_path))
    assert done.stdout.splitlines() == [
        "global  mAP 75.000",
        "local   mAP 66.667",
        "merged  mAP 75.000",
    ]
    assert json.loads(json_path.read_text())["heads"]["local"]["per_class"]["1"] == pytest.approx(
        100 / 3
    )
    done = run("ensemble", str(score_path), str(score_path), "--rate", "0.9")
    assert done.stdout == "ensemble at rate 0.9  mAP 75.000\n"
    output = tmp_path / "both.npz"
    run("ensemble", str(score_path), str(score_path), "--rate", "0.9", "-o", str(output))
    assert "merged  mAP 75.000" in run("eval", "--scores", str(output)).stdout


def test_a_class_without_positives_is_named(tmp_path: Path) -> None:
    targets = np.array([[1, -1], [-1, -1]])
    zeros = np.zeros((2, 2))
    names = np.array(["dog", "cat"])
    arrays = {"targets": targets, "global": zeros, "local": zeros, "names": names}
    path = save(tmp_path / "s.npz", **arrays)
    done = run("eval", "--scores", str(path))
    assert "1 of 2 classes have no positive, left out: cat" in done.stdout
    done = run("eval", "--scores", str(path), "--empty-class", "zero", "--json", "-")
    found = json.loads(done.stdout)
    assert found["heads"]["global"] == {"map": 50.0, "per_class": {"dog": 100.0, "cat": None}}


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"targets": TARGETS, "global": GLOBAL}, "no array local"),
        ({"global": GLOBAL, "local": LOCAL}, "no targets"),
        ({"targets": -abs(TARGETS), "global": GLOBAL, "local": LOCAL}, "none of 2 classes"),
    ],
)
def test_bad_files_give_one_line_and_exit_code_two(
    tmp_path: Path, arrays: dict[str, np.ndarray], expected: str
) -> None:
    path = save(tmp_path / "bad.npz", **arrays)
    done = run("eval", "--scores", str(path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert expected in done.stderr
    assert str(path) in done.stderr


def test_f1_of_the_best_tags_and_from_a_threshold_on(score_path: Path) -> None:
    options = ("--top", "1", "--threshold", "0.4")
    lines = run("eval", "--scores", str(score_path), *options).stdout.splitlines()
    # The best tag of each row of the global scores: class 0, class 0 (a tie), class 1.
    expected = "CP 25.000  CR 50.000  CF1 33.333  OP 33.333  OR 50.000  OF1 40.000"
    assert lines[3] == f"global  top-1  {expected}"
    # From 0.4 on: class 0 in rows 0 and 1, class 1 in rows 1 and 2.
    expected = "CP 50.000  CR 100.000  CF1 66.667  OP 50.000  OR 100.000  OF1 66.667"
    assert lines[6] == f"global  ≥ 0.4  {expected}"
    ignoring = run("eval", "--scores", str(score_path), *options, "--difficult", "ignore")
    # Row 1 of class 0 is difficult: its decision is not a mistake any more.
    assert "global  ≥ 0.4  CP 75.000  CR 100.000" in ignoring.stdout


def test_plots_of_saved_scores(score_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run("eval", "--scores", str(score_path), "--plots", str(tmp_path / "plots"))
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == ["merge-weight.png", "per-class.png", "precision-recall.png"]


def test_the_command_takes_a_transform_with_a_factor(score_path: Path) -> None:
    options = ("--scores", str(score_path), "--score-transform", "log_softmax:4", "--json", "-")
    assert json.loads(run("eval", *options).stdout)["score_transform"] == "log_softmax:4"


def test_options_of_data_sets_are_not_lost_on_saved_scores(score_path: Path) -> None:
    done = run("eval", "--scores", str(score_path), "--methods", "zsclip")
    assert done.returncode == 2
    assert "--methods goes with --dataset, not with --scores" in done.stderr


def test_a_file_of_scores_has_to_be_given() -> None:
    done = run("eval")
    assert done.returncode == 2
    assert "--scores" in done.stderr

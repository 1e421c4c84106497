"""A transform of scores that is chosen without labels, and its place in a bank."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from taidpt.calibration import job
from taidpt.runtime.bank.class_bank import ClassBank, Threshold
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.score_transforms import transform_scores
from taidpt.transform_choice import (
    ScoreTransform,
    choose_transform,
    with_transform,
)
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.taidpt.calibration.simulator import Size, simulate
from tests.taidpt.calibration.small_scene import draw_pictures
from tests.taidpt.calibration.test_calibrate_command import calibrate


def test_frames_that_lift_all_tags_ask_for_a_transform_and_plain_frames_do_not() -> None:
    size = Size(500, 16)
    assert choose_transform(simulate("plain", 301, size).merged())[0].kind == "none"
    assert choose_transform(simulate("offsets", 301, size).merged())[0].kind != "none"


def test_log_softmax_with_a_temperature_follows_the_formula() -> None:
    scores = np.array([[1.0, 3.0, 2.0], [0.0, 1.0, -1.0]])
    bias = np.array([0.5, 2.0, 0.5])
    found = ScoreTransform("log_softmax", 2.0, bias)(scores)
    expected = np.exp(2 * (scores - bias))
    np.testing.assert_allclose(np.exp(found), expected / expected.sum(axis=1, keepdims=True))


def test_a_bank_with_temperature_and_bias_scores_as_the_transform() -> None:
    bank = TinySpec(bank_as="input").bank()
    random = np.random.default_rng(0)
    cosines = random.standard_normal((30, len(bank.names)))
    transform = ScoreTransform("log_softmax", 1.7, random.standard_normal(len(bank.names)))
    changed = with_transform(bank, transform)
    before = cosines * bank.scale + bank.bias
    after = transform_scores(cosines * changed.scale + changed.bias, "log_softmax")
    np.testing.assert_allclose(after, transform(before), atol=1e-5)
    np.testing.assert_allclose(after, transform(transform_scores(before, "log_softmax")), atol=1e-5)


def _log_softmax_bundle(path: Path, spec: TinySpec) -> Path:
    bundle = Bundle.load(tiny_bundle(path, spec))
    scoring = dataclasses.replace(bundle.manifest.scoring, transform="log_softmax")
    bundle.with_manifest(dataclasses.replace(bundle.manifest, scoring=scoring))
    return path


def test_auto_writes_temperature_and_bias_into_the_bank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TinySpec(bank_as="input")
    bundle = _log_softmax_bundle(tmp_path / "scene.taidpt", spec)
    spec.bank().save(tmp_path / "site.bank")
    pictures = draw_pictures(tmp_path / "pictures", 30)
    bias = np.linspace(-1, 1, len(spec.names))
    transform = ScoreTransform("log_softmax", 2.0, bias)
    monkeypatch.setattr(job, "choose_transform", lambda *_: (transform, {str(transform): 0.5}))
    found = {spec.names[0]: (Threshold(0.5, 0.4, "calibrated"), None)}  # noise teaches nothing
    monkeypatch.setattr(job, "learned", lambda _: (found, {}))
    options = ("--bank", tmp_path / "site.bank", "--frames", pictures)
    done = calibrate(bundle, *options, "--score-transform", "auto")
    assert done.returncode == 0, done.stderr
    assert "<- chosen" in done.stdout
    changed = ClassBank.load(tmp_path / "site.bank")
    np.testing.assert_allclose(changed.scale, 2 * spec.bank().scale)
    np.testing.assert_allclose(changed.bias, 2 * (spec.bank().bias - bias), atol=1e-6)


def test_auto_refuses_a_graph_without_log_softmax(tmp_path: Path) -> None:
    spec = TinySpec(bank_as="input")
    bundle = tiny_bundle(tmp_path / "scene.taidpt", spec)
    spec.bank().save(tmp_path / "site.bank")
    options = ("--bank", tmp_path / "site.bank", "--frames", tmp_path)
    done = calibrate(bundle, *options, "--score-transform", "auto")
    assert done.returncode == 2
    assert "need log_softmax" in done.stderr


def test_auto_without_a_bank_is_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "scene.taidpt", TinySpec())
    done = calibrate(bundle, "--frames", tmp_path, "--score-transform", "auto")
    assert done.returncode == 2
    assert "--bank FILE" in done.stderr


def test_auto_on_a_matrix_says_what_it_chose(tmp_path: Path) -> None:
    simulate("offsets", 302, Size(300, 8)).save(tmp_path / "s.npz")
    done = calibrate("--scores", tmp_path / "s.npz", "--score-transform", "auto")
    assert done.returncode == 0
    assert done.stdout.count("<- chosen") == 1


def test_scores_that_are_all_below_zero_are_not_taken_for_log_probabilities() -> None:
    scores = simulate("plain", 300, Size(300, 8)).merged()
    below = scores - scores.max() - 0.01
    plain, shifted = (choose_transform(values, ("none",))[1]["none"] for values in (scores, below))
    assert shifted == pytest.approx(plain, abs=1e-3)  # taken for such, they explained 0.17 more

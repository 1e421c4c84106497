"""Confusable tags: a bank with a near-duplicate, frames that fire together, the command."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from taidpt.cli import cli
from taidpt.confusable.pairs import find_confusable
from taidpt.runtime.bank.class_bank import ClassBank, Threshold
from taidpt.runtime.errors import InputError
from tests.runtime import tiny

NAMES = ("car", "auto", "dog", "cat")
THRESHOLDS = tuple(
    Threshold(0.5, 0.4, source)
    for source in ("from texts", "from texts", "from texts, all tags", "calibrated")
)


@pytest.fixture
def bank() -> ClassBank:
    rows = np.random.default_rng(0).standard_normal((4, 16)) + 3
    rows[1] = rows[0] + 0.1
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return ClassBank.from_rows(NAMES, rows, rows, thresholds=THRESHOLDS)


def test_near_duplicates_and_missing_texts_from_the_bank(bank: ClassBank) -> None:
    found = find_confusable(bank, THRESHOLDS)
    assert [(pair.first, pair.second) for pair in found.near_duplicates] == [("car", "auto")]
    assert found.no_text == ("dog",)
    assert found.together is None
    new = tuple(Threshold(0.5, 0.4, "from other tags") for _ in NAMES)
    assert find_confusable(bank, new).no_text == NAMES
    assert find_confusable(bank, THRESHOLDS, named=np.array([1, 0, 2, 0])).no_text == (
        "auto",
        "cat",
    )


def test_on_together_and_never_on_by_hand(bank: ClassBank) -> None:
    scores = np.zeros((10, 4))
    scores[:4, :2] = 1.0
    scores[4, 0] = scores[9, 2] = 1.0
    found = find_confusable(bank, THRESHOLDS, scores)
    (pair,) = found.fire_together
    assert (pair.first, pair.second, pair.frames) == ("car", "auto", 4)
    assert pair.together == pytest.approx(4 / 5)
    assert found.never_on == ("cat",)


def test_command_writes_a_page_and_a_picture(bank: ClassBank, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(3):
        Image.new("RGB", (16, 16), (80 * index, 0, 0)).save(pictures / f"{index}.png")
    bundle = str(tiny.tiny_bundle(tmp_path / "a.taidpt"))
    page, drawn = tmp_path / "a.html", tmp_path / "a.png"
    done = CliRunner().invoke(
        cli, ["calibrate", bundle, "--frames", str(pictures), "--report", str(page)]
    )
    assert done.exit_code == 0, done.output
    assert "3 frames" in done.output
    text = page.read_text()
    assert "<h2>Never on</h2>" in text
    assert all(text.count(f">{html.escape(name)}<") >= 2 for name in tiny.NAMES), "a row, a column"
    bank.save(tmp_path / "a.bank")
    done = CliRunner().invoke(cli, ["calibrate", str(tmp_path / "a.bank"), "--report", str(drawn)])
    assert done.exit_code == 0, done.output
    assert "car and auto" in done.output
    assert drawn.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("more", "word"), [(("--frames", "x"), "need a bundle"), (("--report", "a.txt"), "ends in")]
)
def test_bad_arguments(bank: ClassBank, tmp_path: Path, more: tuple[str, ...], word: str) -> None:
    bank.save(tmp_path / "a.bank")
    done = CliRunner().invoke(cli, ["calibrate", str(tmp_path / "a.bank"), "--report", "-", *more])
    assert isinstance(done.exception, InputError)
    assert word in str(done.exception)

"""Damaged manifests: every one is read, or refused in one line, at once."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from taidpt.cli import cli
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import TaidptError
from taidpt.runtime.tagger.tagger import Tagger
from tests.hostile.damage import damage_bytes, damage_json, require_one_line
from tests.runtime.tiny import TinySpec, tiny_bundle

FRAME = np.zeros((16, 16, 3), np.uint8)
RAMP = {"scores": [-1.0, 0.0, 1.0], "probabilities": [0.0, 0.5, 1.0], "frames": 9}
# One batch of inputs a test, so that a failure is found again quickly.
BATCHES, INPUTS = 8, 100
COMMANDS = (
    ["tag", "BUNDLE", "PICTURE"],
    ["verify", "BUNDLE"],
    ["doctor", "BUNDLE"],
    ["export", "BUNDLE", "--swappable-bank", "-o", "OUT"],
    ["bank", "make", "BUNDLE", "-o", "BANK"],
    ["bank", "compare", "BUNDLE", "PICTURE"],
)


def write_manifest(path: Path, chance: random.Random, manifest: Any) -> None:
    text = json.dumps(damage_json(manifest, chance), ensure_ascii=True)
    data = text.encode()
    if chance.random() < 0.25:
        data = damage_bytes(data, chance)
    (path / "manifest.json").write_bytes(data)


def use(path: Path) -> None:
    """Everything that a program can do with a bundle."""
    bundle = Bundle.load(path)
    assert bundle.names
    with Tagger.load(path, device="cpu") as tagger:
        batch = tagger.tag_batch([FRAME, FRAME])
        json.dumps(batch.to_dict(), allow_nan=False)
        for result in batch:
            assert [tag.name for tag in result.tags]
            assert result.heatmap(bundle.names[0]).shape == bundle.manifest.model.grid
        assert len(tagger.class_bank.names) == len(bundle.names)
    bundle.with_manifest(bundle.manifest)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "b.taidpt")


def sample(path: Path) -> dict[str, Any]:
    """The manifest of the tiny bundle, with a calibrated tag."""
    manifest: dict[str, Any] = json.loads((path / "manifest.json").read_bytes())
    manifest["tags"][0]["probability"] = RAMP
    return manifest


@pytest.mark.timeout(60)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_damaged_manifest_is_read_or_refused(path: Path, batch: int) -> None:
    manifest, refused = sample(path), 0
    for number in range(INPUTS):
        chance = random.Random(f"manifest {batch} {number}")
        write_manifest(path, chance, manifest)
        try:
            use(path)
        except TaidptError as error:
            refused += 1
            require_one_line(error)
        except Exception as error:
            shown = (path / "manifest.json").read_bytes()[:3000]
            pytest.fail(f"input {batch}/{number}: {type(error).__name__} {error}\n{shown!r}")
    assert refused > INPUTS // 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_every_command_refuses_it_in_one_line(
    path: Path, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    picture = tmp_path / "a.png"
    Image.fromarray(FRAME).save(picture)
    names = {"BUNDLE": path, "PICTURE": picture, "OUT": tmp_path / "o", "BANK": tmp_path / "x.bank"}
    arguments = [str(names.get(word, word)) for word in command]
    manifest = sample(path)
    for number in range(20):
        chance = random.Random(f"{command[0]} {number}")
        write_manifest(path, chance, manifest)
        try:
            with cli.make_context("taidpt", list(arguments)) as context:
                cli.invoke(context)
        except TaidptError as error:
            require_one_line(error)
        except (click.exceptions.Exit, click.ClickException):
            pass
        except Exception as error:
            shown = (path / "manifest.json").read_bytes()[:3000]
            pytest.fail(f"input {number}: {type(error).__name__} {error}\n{shown!r}")


def test_the_bundle_of_these_tests_is_whole(path: Path) -> None:
    (path / "manifest.json").write_text(json.dumps(sample(path)))
    use(path)
    assert TinySpec().names == Bundle.load(path).names

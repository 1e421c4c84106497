"""A few real training steps on a few scenes, and resuming after a stop."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.toyworld.drawing.scenes import FONT_PATH, font_installed
from scripts.toyworld.model import load_model
from scripts.toyworld.scene_store import SceneStore, render_store
from scripts.toyworld.train import Stage, TrainSettings, train
from scripts.toyworld.train_text import train_text
from taidpt.toyworld import assets
from tests.support import require


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("noto-emoji", font_installed(), f"{FONT_PATH}: apt-get install fonts-noto-color-emoji")
    folder = tmp_path_factory.mktemp("scenes")
    render_store(folder, 48, assets.path("merges.txt.gz"), size=96, processes=1)
    return folder


def test_batches_depend_on_the_seed(store_folder: Path) -> None:
    store = SceneStore(store_folder)
    assert len(store) == 48
    first, again = (store.batch(np.arange(8), 5) for _ in range(2))
    other = store.batch(np.arange(8), 6)
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.tokens, other.tokens)
    assert not torch.equal(first.images, other.images)
    few = store.with_at_most(2)
    assert 0 < len(few) < 48


def test_captions_are_true_of_their_scene_and_of_few_others(store_folder: Path) -> None:
    batch = SceneStore(store_folder).batch(np.arange(48), 0)
    assert batch.tokens.shape[0] == 96
    assert batch.true.shape == (48, 96)
    own, wrong = batch.true[:, :48].diagonal(), batch.true[:, 48:].diagonal()
    assert own.all()
    # the exchanged thing may be one that the caption leaves out
    assert wrong.float().mean() < 0.5
    assert batch.true.float().mean() < 0.1


def test_training_resumes_from_its_checkpoint(store_folder: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for path in (assets.path("merges.txt.gz"), assets.path("heldout.zip")):
        shutil.copy(path, files / path.name)
    work = tmp_path / "work"
    shutil.copytree(store_folder, work)
    stages = (Stage(64, 2), Stage(96, 2))
    settings = TrainSettings(stages, batch=8, scenes=48, save_every=4, probe=8)
    torch.manual_seed(0)
    train(settings, work, files)
    whole = load_model(files / "model.safetensors", files / "model.json").state_dict()
    (work / "checkpoint.pt").unlink()
    train(TrainSettings(stages[:1], batch=8, scenes=48, probe=8), work, files)
    train(settings, work, files)
    continued = load_model(files / "model.safetensors", files / "model.json").state_dict()
    # 16-bit matrix products leave a little room for the order of sums.
    for name, value in whole.items():
        torch.testing.assert_close(continued[name], value, atol=2e-3, rtol=2e-2, msg=name)


def test_a_new_text_tower_leaves_the_image_tower(tmp_path: Path, store_folder: Path) -> None:
    assert store_folder.is_dir()  # the font is installed
    for name in ("model.safetensors", "model.json", "merges.txt.gz"):
        shutil.copy(assets.path(name), tmp_path / name)
    train_text(TrainSettings((Stage(160, 2),), batch=8, warmup=1, scenes=50, probe=8), tmp_path)
    before = load_model().state_dict()
    after = load_model(tmp_path / "model.safetensors").state_dict()
    same = {name for name, value in before.items() if torch.equal(after[name], value)}
    assert {name for name in before if name.startswith("visual.")} <= same
    assert not torch.equal(after["token_embedding.weight"], before["token_embedding.weight"])
    assert torch.isfinite(after["text_projection"]).all()

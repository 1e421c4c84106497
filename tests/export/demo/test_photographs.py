"""The line on one's own pictures, with weights laid into the hub's cache.

They are random, so that nothing here says how good the tags are.
"""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import open_clip
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from taidpt.cli import cli
from taidpt.export.demo import photographs
from taidpt.export.demo.photographs import EVERYDAY_TAGS, MODEL, run_photographs
from taidpt.progress import SilentProgress
from taidpt.runtime.errors import InputError
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.toyworld import assets
from taidpt.tuning.settings import TuneSettings

SMALL = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache as huggingface_hub lays it out, with a small model of RN50's kind; no network.

    RN50 itself, 200 MB of random weights, went through the same test once; it takes minutes.
    """
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "small-quickgelu.json").write_text(json.dumps(SMALL))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {**open_clip.factory._MODEL_CONFIGS})
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [])
    open_clip.add_model_config(tmp_path / "configs")
    settings = {**open_clip.get_pretrained_cfg(MODEL, "openai"), "hf_hub": "some/small/"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "small-quickgelu", {"openai": settings})
    monkeypatch.setattr(photographs, "MODEL", "small-quickgelu")
    cache, revision = tmp_path / "hub", "0" * 40
    repository = cache / "models--some--small"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    weights = open_clip.create_model("small-quickgelu").state_dict()
    save_file(
        {name: value.contiguous() for name, value in weights.items()},
        snapshot / "open_clip_model.safetensors",
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


def test_everyday_tags_on_own_pictures(hub: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "own"
    pictures.mkdir()
    for index in range(6):
        noise = np.random.default_rng(index).integers(0, 256, (90, 120, 3), np.uint8)
        Image.fromarray(noise).save(pictures / f"{index}.png")
    settings = TuneSettings(epochs=1, held_out=0.0)
    result = run_photographs(
        tmp_path / "demo", "openai", (str(pictures),), SilentProgress(), settings, captions=40
    )
    assert result.frames == 6
    with Tagger.load(result.bundle, device="cpu") as tagger:
        assert tagger.names == EVERYDAY_TAGS
    assert "Everyday tags on your pictures" in result.page.read_text("utf-8")
    assert result.pictures.is_dir()
    assert "6, which is too few" in result.note


def test_model_is_openai_rn50() -> None:
    assert open_clip.get_pretrained_cfg(MODEL, "openai")["hf_hub"] == "timm/resnet50_clip.openai/"


def test_captions_of_the_package_name_every_everyday_tag() -> None:
    words = assets.path("tuning_captions.txt").read_text("utf-8").lower()
    assert not [tag for tag in EVERYDAY_TAGS if words.count(tag) < 20]


@pytest.mark.parametrize("options", [["--pretrained", "openai"], ["--frames", "x"]])
def test_weights_and_pictures_need_each_other(options: list[str]) -> None:
    done = CliRunner().invoke(cli, ["demo", *options])
    assert done.exit_code == 2
    assert "need each other" in done.output


def test_pictures_that_are_not_there_are_named_before_the_work(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    with pytest.raises(InputError, match="none: no such file"):
        run_photographs(tmp_path / "demo", "openai", (missing,), SilentProgress(), TuneSettings())
    assert not (tmp_path / "demo").exists()

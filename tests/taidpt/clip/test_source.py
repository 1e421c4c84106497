"""Model folders in open_clip's form: read as open_clip reads them, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from taidpt.clip.model import load_clip
from taidpt.clip.source import resolve_source
from taidpt.encoders.local_branch import image_encoder
from taidpt.features.prompt_encoder import encode_texts
from taidpt.runtime.errors import InputError
from tests.hub_tokenizer import VOCABULARY, save_tokenizer
from tests.support import shared_data
from tests.taidpt.tiny import RESNET

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": RESNET,
        "text_cfg": {"context_length": 20, "width": 64, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
}


def save_folder(folder: Path, config: dict[str, Any] = CONFIG, seed: int = 1) -> Path:
    """A model folder with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config), "utf-8")
    torch.manual_seed(seed)
    model = open_clip.model.CLIP(**config["model_cfg"])
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("models") / "mine")


@pytest.mark.parametrize("form", ["{}", "local-dir:{}"])
def test_a_folder_gives_open_clips_own_model(folder: Path, form: str) -> None:
    clip = load_clip(form.format(folder))
    own = open_clip.create_model(f"local-dir:{folder}").eval()
    pictures = torch.randn(2, 3, clip.image_size, clip.image_size)
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a dog", "a traffic light"])
    with torch.no_grad():
        expected = torch.nn.functional.normalize(own.encode_text(tokens), dim=-1)
        torch.testing.assert_close(
            image_encoder(clip).zero_shot_features(pictures), own.encode_image(pictures)
        )
    torch.testing.assert_close(
        encode_texts(clip, ["a dog", "a traffic light"]), expected, rtol=1e-4, atol=1e-5
    )
    assert clip.mean == (0.5, 0.4, 0.3)
    assert clip.std == (0.2, 0.3, 0.4)
    assert clip.context_length == tokens.shape[1] == 20
    assert clip.name == str(folder)
    assert clip.pretrained == "open_clip_model.safetensors"


def test_what_a_file_records_of_a_folder_loads_the_same_weights(folder: Path) -> None:
    first = load_clip(str(folder))
    again = load_clip(first.name, first.pretrained)
    assert again.weights_sha256 == first.weights_sha256


def test_a_folder_that_moved_is_given_as_the_weights(folder: Path, tmp_path: Path) -> None:
    source = resolve_source(str(tmp_path / "gone"), str(folder))
    assert source.name == str(folder)
    assert source.path == folder / "open_clip_model.safetensors"


def test_random_weights_of_a_folders_architecture(folder: Path) -> None:
    clip = load_clip(str(folder), "random:5")
    assert clip.pretrained == "random:5"
    assert clip.mean == (0.5, 0.4, 0.3)


def test_a_folder_brings_its_own_hugging_face_tokenizer(tmp_path: Path) -> None:
    text = {"vocab_size": VOCABULARY, "hf_tokenizer_name": "nobody/there"}
    model = {**CONFIG["model_cfg"], "text_cfg": {**CONFIG["model_cfg"]["text_cfg"], **text}}
    folder = save_folder(tmp_path / "mine", {**CONFIG, "model_cfg": model})
    with pytest.raises(InputError, match=r"tokenizer of .*mine cannot be read from that folder"):
        load_clip(str(folder))
    save_tokenizer(folder)
    assert load_clip(str(folder)).tokenizer(["a dog"]).shape == (1, 20)


def _without(part: str) -> dict[str, Any]:
    model = {key: value for key, value in CONFIG["model_cfg"].items() if key != part}
    return {**CONFIG, "model_cfg": model}


def _wider(part: str) -> dict[str, Any]:
    model = CONFIG["model_cfg"]
    return {**CONFIG, "model_cfg": {**model, part: {**model[part], "width": 128}}}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, r"open_clip_config\.json is missing"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ([], "no model_cfg"),
        ({"model_cfg": {}}, "no model_cfg with vision_cfg and text_cfg"),
        (_without("text_cfg"), "no model_cfg with vision_cfg and text_cfg"),
        (_without("embed_dim"), "could not be built: .*embed_dim"),
        ({**CONFIG, "preprocess_cfg": {"mean": [0.5]}}, "mean should be three numbers"),
        ({**CONFIG, "preprocess_cfg": 3}, "preprocess_cfg is no object"),
        (_wider("text_cfg"), "do not fit this model"),
        (_wider("vision_cfg"), "do not fit this model"),
    ],
)
def test_a_damaged_folder_is_one_line(
    folder: Path, tmp_path: Path, config: Any, reason: str
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "open_clip_model.safetensors").symlink_to(folder / "open_clip_model.safetensors")
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (broken / "open_clip_config.json").write_text(text, "utf-8")
    with pytest.raises(InputError, match=reason) as caught:
        load_clip(str(broken))
    assert "\n" not in str(caught.value)
    assert str(broken) in str(caught.value)


def test_missing_and_ambiguous_weights_are_one_line(folder: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone"
    lone.mkdir()
    (lone / "open_clip_config.json").write_text(json.dumps(CONFIG), "utf-8")
    with pytest.raises(
        InputError, match=r"holds no weights: expected open_clip_model\.safetensors"
    ):
        load_clip(str(lone))
    for name in ("a.safetensors", "b.pt"):
        (lone / name).symlink_to(folder / "open_clip_model.safetensors")
    with pytest.raises(InputError, match=r"several weight files \(a\.safetensors, b\.pt\)"):
        load_clip(str(lone))
    assert load_clip(str(lone), "a.safetensors").pretrained == "a.safetensors"
    with pytest.raises(InputError, match=r"no weights 'c\.safetensors'"):
        load_clip(str(lone), "c.safetensors")
    with pytest.raises(InputError, match="there is no such folder"):
        load_clip(str(tmp_path / "gone"))


def test_other_preprocessing_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = {**CONFIG, "preprocess_cfg": {"resize_mode": "squash", "interpolation": "bicubic"}}
    other = save_folder(folder.parent / "squashed", config)
    resolve_source(str(other))
    assert "resize_mode squash" in caplog.text


def test_the_small_real_model_has_a_local_branch() -> None:
    clip = load_clip(str(shared_data("data/model")))
    assert clip.mean[0] == pytest.approx(0.498, abs=1e-3)
    assert clip.context_length == 77
    pictures = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, patches = image_encoder(clip)(pictures)
    torch.testing.assert_close(patches.mean(dim=1), whole, rtol=1e-3, atol=1e-4)  # linear head

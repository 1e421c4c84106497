"""Loading CLIPs: random weights, files of three kinds, and what is said when it cannot be done."""

from __future__ import annotations

import json
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from taidpt.clip.model import load_clip
from taidpt.clip.weights import is_torchscript_archive, licence_note, read_state_dict
from taidpt.runtime.errors import InputError, MissingDependencyError
from taidpt.runtime.storage.atomic import sha256_of
from tests.support import require
from tests.taidpt.tiny import RESNET, make_clip

SMALL = "taidpt-test-RN"


@pytest.fixture(scope="module", autouse=True)
def small_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Register a small architecture with open_clip, the way its users add their own."""
    config = {"embed_dim": 32, "vision_cfg": RESNET, "text_cfg": {"width": 64, "layers": 1}}
    path = tmp_path_factory.mktemp("configs") / f"{SMALL}.json"
    path.write_text(json.dumps(config), "utf-8")
    open_clip.add_model_config(path)


def test_random_weights_are_seeded_and_named_so() -> None:
    first, again = load_clip(SMALL, "random", seed=3), load_clip(SMALL, "random:3")
    other = load_clip(SMALL, "random", seed=4)
    assert first.pretrained == again.pretrained == "random:3"
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert (first.image_size, first.embed_dim, first.context_length) == (96, 32, 77)
    assert first.is_causal
    assert not first.model.training
    assert all(not p.requires_grad and p.dtype == torch.float32 for p in first.model.parameters())


def test_random_weights_leave_the_callers_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_clip(SMALL, "random")
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("suffix", "keys", "prefix"),
    [
        ("safetensors", (), ""),
        ("safetensors", (), "model."),
        ("pt", (), ""),
        ("pt", ("state_dict",), "module."),
        ("pt", ("model",), ""),
        ("bin", ("model_state_dict",), "_orig_mod."),
        ("pt", ("state_dict", "model"), "_orig_mod.module."),
        ("pth", (), "student.clip."),
    ],
)
def test_local_files_give_their_weights_and_hash(
    tmp_path: Path, suffix: str, keys: tuple[str, ...], prefix: str
) -> None:
    source = load_clip(SMALL, "random:1").model.state_dict()
    path = tmp_path / f"weights.{suffix}"
    content: Any = {f"{prefix}{name}": value.contiguous() for name, value in source.items()}
    if prefix:
        content["loss.weight"] = torch.ones(2)  # training loops save more than the model
    if suffix == "safetensors":
        save_file(content, path)
    else:
        for key in reversed(keys):
            content = {"epoch": 3, key: content}
        torch.save(content, path)
    clip = load_clip(SMALL, str(path))
    assert clip.weights_sha256 == sha256_of(path)
    assert clip.pretrained == str(path)
    loaded = clip.model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in source.items())


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
def test_a_torchscript_archive_is_read_without_its_code(tmp_path: Path) -> None:
    model = make_clip().model
    path = tmp_path / "archive.pt"
    # fp16 like OpenAI's originals; the image tower alone is enough to have nested modules.
    traced = torch.jit.trace(
        model.visual.half(), torch.zeros(1, 3, 96, 96).half(), check_trace=False
    )
    torch.jit.save(traced, path)
    assert is_torchscript_archive(path)
    state = read_state_dict(path)
    expected = model.visual.state_dict()
    wanted = {name for name in expected if not name.endswith("num_batches_tracked")}
    assert wanted <= set(state)
    assert all(torch.equal(state[name], expected[name]) for name in wanted)


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("bomb-went-off"),))


def test_no_pickle_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": _Bomb()}, tmp_path / "bomb.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(_Bomb()))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    for name in ("bomb.pt", "raw.pt", "whole.pt"):
        with pytest.raises(InputError, match=f"{name}: cannot be .* alone.* model.state_dict"):
            load_clip(SMALL, str(tmp_path / name))
    assert not (tmp_path / "bomb-went-off").exists()


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"visual.conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(InputError, match=r"other.safetensors do not fit this model"):
        load_clip(SMALL, str(path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("vision_model.encoder.layers.0.mlp.fc1.weight", "logit_scale"),
            "named as in transf.*take",
        ),
        (("model.text_model.embeddings.token_embedding.weight",), "named as in transf.*take"),
        (("student.logit_scale", "teacher.logit_scale"), r"several models, under student\., teach"),
    ],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_other_layouts_are_named(
    tmp_path: Path, names: tuple[str, ...], message: str, suffix: str
) -> None:
    path = tmp_path / f"weights.{suffix}"
    content = {name: torch.zeros(2) for name in names}
    save_file(content, path) if suffix == "safetensors" else torch.save(content, path)
    with pytest.raises(InputError, match=message):
        load_clip(SMALL, str(path))


def test_a_file_without_tensors_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "best": 0.5}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="no tensors in it; it holds epoch, best"):
        load_clip(SMALL, str(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("RN50-quickgelo", "openai", "unknown model 'RN50-quickgelo': did you mean RN50-quickgelu"),
        ("RN50-quickgelu", "opnai", r"no weights 'opnai'.*openai.*random"),
        ("RN50", "openai", "trained with QuickGELU: use --model RN50-quickgelu"),
        (SMALL, "random:x", "expected random or random:SEED"),
        ("RN50", "embedded", "--model toyworld --pretrained embedded"),
    ],
)
def test_wrong_names_say_what_is_right(name: str, pretrained: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_clip(name, pretrained)


@pytest.fixture
def published(tmp_path: Path) -> str:
    """A model whose tokenizer should lie in a folder that is empty."""
    config = {"embed_dim": 32, "vision_cfg": RESNET, "text_cfg": {"width": 64, "layers": 1}}
    (tmp_path / "files").mkdir()
    config["text_cfg"]["hf_tokenizer_name"] = str(tmp_path / "files")
    path = tmp_path / "taidpt-test-published.json"
    path.write_text(json.dumps(config), "utf-8")
    open_clip.add_model_config(path)
    return path.stem


def test_a_tokenizer_that_is_not_there_says_how_to_get_it(
    published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("transformers", find_spec("transformers") is not None, "pip install 'taidpt[siglip]'")
    extra = "pip install 'taidpt\\[siglip\\]'"
    with monkeypatch.context() as patch:
        patch.setattr("taidpt.clip.tokenizer_files.find_spec", lambda _: object())
        with pytest.raises(InputError, match=r"/files of .*published is not here .* hf download"):
            load_clip(published, "random")
    with monkeypatch.context() as patch:
        patch.setattr("taidpt.clip.tokenizer_files.find_spec", lambda _: None)
        with pytest.raises(MissingDependencyError, match=f"need sentencepiece: {extra}"):
            load_clip(published, "random")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=f"transformers and sentencepiece: {extra}"):
        load_clip(published, "random")


def test_weights_that_cannot_be_fetched_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"could not be fetched .* give a local file"):
        load_clip("RN50-quickgelu", "openai")


def test_licences_are_known_or_said_to_be_unknown() -> None:
    assert licence_note("openai").startswith("MIT")
    assert "no commercial" in licence_note("metaclip_400m")
    assert licence_note("yfcc15m") == "unknown, see the source"

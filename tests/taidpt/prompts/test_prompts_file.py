"""The prompts file: what goes in comes out, and nothing else is let in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from taidpt.clip.model import ClipModel
from taidpt.prompts.prompts_file import PromptSettings, TunedPrompts
from taidpt.runtime.bank.class_bank import Threshold
from taidpt.runtime.errors import InputError
from taidpt.scores import Scoring
from taidpt.texts.tags import Tag


def make_prompts(**changes: Any) -> TunedPrompts:
    values: dict[str, Any] = {
        "contexts": {"global": torch.randn(4, 8), "local": torch.randn(4, 8)},
        "tags": (Tag("dog", ("puppy",)), Tag("traffic light", ())),
        "thresholds": (Threshold(1.5, 1.25, "from texts"), Threshold(0.5, 0.5, "from texts")),
        "model": {
            "name": "tiny",
            "pretrained": "random:0",
            "weights_sha256": "0" * 64,
            "licence": "none needed",
            "embed_dim": 32,
        },
        "settings": PromptSettings(context_tokens=4, name_position="middle"),
        "scoring": Scoring(4.0, 0.25, "center"),
        "probabilities": (
            {"scores": [0.5, 1.5], "probabilities": [0.1, 0.9], "state": "from texts"},
            {"scores": [0.5], "probabilities": [0.0], "state": "from texts"},
        ),
        "provenance": {"texts": {"sha256": "ab", "sources": ["é.txt"]}, "losses": [1.5, 0.25]},
    }
    return TunedPrompts(**{**values, **changes})


def test_prompts_survive_saving_and_loading(tmp_path: Path) -> None:
    prompts, path = make_prompts(), tmp_path / "street.safetensors"
    prompts.save(path)
    loaded = TunedPrompts.load(path)
    assert {k: v for k, v in vars(loaded).items() if k != "contexts"} == {
        k: v for k, v in vars(prompts).items() if k != "contexts"
    }
    for head, context in prompts.contexts.items():
        assert torch.equal(loaded.contexts[head], context)
    assert loaded.names == ("dog", "traffic light")
    assert [file.name for file in tmp_path.iterdir()] == ["street.safetensors"]


def rewrite(path: Path, change: Any) -> None:
    """Save a prompts file again with its header changed."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stream:
        header = json.loads(stream.metadata()["taidpt"])
    change(header)
    save_file(load_file(path), path, metadata={"taidpt": json.dumps(header)})


def test_prompts_of_older_versions_have_no_maps(tmp_path: Path) -> None:
    make_prompts().save(tmp_path / "a")
    rewrite(tmp_path / "a", lambda header: header.pop("probabilities"))
    assert TunedPrompts.load(tmp_path / "a").probabilities == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header["probabilities"].pop(), "1 probability maps for 2 tags"),
        (
            lambda header: header["probabilities"][1].update(scores=[]),
            r"probabilities\[1\]: a probability map needs as many probabilities as",
        ),
        (lambda header: header.update(schema=2), "schema 2 is newer than this version reads"),
        (
            lambda header: header.update(kind="taidpt-bank"),
            "'kind' should be one of taidpt-prompts",
        ),
        (lambda header: header.pop("tags"), "'tags' should be a list, got nothing"),
        (lambda header: header["tags"].pop(), "2 thresholds for 1 tags"),
        (
            lambda header: header["model"].pop("weights_sha256"),
            "'weights_sha256' should be a string",
        ),
        (lambda header: header["settings"].update(context_tokens=5), r"float32 \[5, 8\]"),
        (lambda header: header["scoring"].update(merge_weight=2), "from 0 to 1, got 2"),
        (lambda header: header["thresholds"][0].update(off=9), "'off' should be at most"),
    ],
)
def test_invalid_header_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "prompts.safetensors"
    make_prompts().save(path)
    rewrite(path, change)
    with pytest.raises(InputError, match=message) as caught:
        TunedPrompts.load(path)
    assert str(path) in str(caught.value)


def test_other_files_are_refused_by_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; `taidpt tune` writes one"):
        TunedPrompts.load(tmp_path / "none.safetensors")
    truncated = tmp_path / "cut.safetensors"
    make_prompts().save(truncated)
    truncated.write_bytes(truncated.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"cut.safetensors: damaged or not a prompts file"):
        TunedPrompts.load(truncated)
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(InputError, match=r"other.safetensors: not a prompts file"):
        TunedPrompts.load(other)
    torch.save({"x": 1}, tmp_path / "pickle.safetensors")
    with pytest.raises(InputError, match="damaged or not a prompts file"):
        TunedPrompts.load(tmp_path / "pickle.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contexts": {"local": torch.zeros(4, 8)}}, "or positive and negative, got local"),
        ({"contexts": {"global": torch.zeros(4, 8).double()}}, "should be float32"),
        ({"contexts": {"global": torch.full((4, 8), torch.nan)}}, "not finite"),
        ({"tags": (Tag("dog", ()), Tag("dog", ()))}, "2 .1 distinct"),
    ],
)
def test_impossible_prompts_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_prompts(**changes)


def test_prompts_of_another_model_are_refused(resnet_clip: ClipModel) -> None:
    make_prompts().check_model(resnet_clip)
    model = {"name": "RN50", "pretrained": "openai", "weights_sha256": "f" * 64, "licence": "MIT"}
    with pytest.raises(InputError, match=r"tuned for RN50 with weights openai .*got tiny"):
        make_prompts(model=model).check_model(resnet_clip)


def test_saving_without_a_folder_gives_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write the prompts: No such file"):
        make_prompts().save(tmp_path / "nowhere" / "prompts.safetensors")

"""The line on photographs, the package's and one's own, with weights laid into the hub's cache.

They are random, so that nothing here says how good the tags are.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import open_clip
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from taidpt.cli import cli
from taidpt.export.demo import photographs, shipped
from taidpt.export.demo.photographs import EVERYDAY_TAGS, MODEL, run_photographs
from taidpt.export.demo.shipped import Agreement, PictureTags
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


@dataclass
class Demo:
    """What `taidpt demo --pretrained openai` printed and wrote."""

    output: str
    folder: Path

    @property
    def bundle(self) -> Path:
        return self.folder / "everyday.taidpt"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A hub's cache as huggingface_hub lays it out, with a small model of RN50's kind; no network.

    RN50 itself, 200 MB of random weights, went through the same test once; it takes minutes.
    """
    folder = tmp_path_factory.mktemp("hub")
    (folder / "configs").mkdir()
    (folder / "configs" / "small-quickgelu.json").write_text(json.dumps(SMALL))
    cache, revision = folder / "hub", "0" * 40
    repository = cache / "models--some--small"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    factory, pretrained = open_clip.factory, open_clip.pretrained
    settings = {**open_clip.get_pretrained_cfg(MODEL, "openai"), "hf_hub": "some/small/"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS})
        patch.setattr(factory, "_MODEL_CONFIG_PATHS", [])
        open_clip.add_model_config(folder / "configs")
        patch.setitem(pretrained._PRETRAINED, "small-quickgelu", {"openai": settings})
        patch.setattr(photographs, "MODEL", "small-quickgelu")
        weights = open_clip.create_model("small-quickgelu").state_dict()
        save_file(
            {name: value.contiguous() for name, value in weights.items()},
            snapshot / "open_clip_model.safetensors",
        )
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield cache


@pytest.fixture(scope="module")
def demo(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    command = ["demo", "--pretrained", "openai", "-o", str(folder), "--quiet"]
    few = functools.partial(run_photographs, captions=40)
    short = functools.partial(TuneSettings, epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photographs, "run_photographs", few)
        patch.setattr("taidpt.tuning.settings.TuneSettings", short)
        done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    return Demo(done.output, folder)


def test_tags_of_the_packages_photographs_stand_beside_the_truth(demo: Demo) -> None:
    lines = demo.output.splitlines()
    for name, shown in shipped.photographs().items():
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert ", ".join(sorted(shown)) in line
    (counts,) = (line for line in lines if "micro F1" in line)
    right, missed = (int(part.split()[0]) for part in counts.split(", ")[:2])
    assert right + missed == sum(map(len, shipped.photographs().values()))
    assert "of 12 photographs" in demo.output
    assert "12, which is too few" in demo.output
    with Tagger.load(demo.bundle, device="cpu") as tagger:
        assert tagger.names == EVERYDAY_TAGS


def test_everyday_tags_on_own_pictures(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "own"
    pictures.mkdir()
    for index in range(6):
        noise = np.random.default_rng(index).integers(0, 256, (90, 120, 3), np.uint8)
        Image.fromarray(noise).save(pictures / f"{index}.png")
    monkeypatch.setattr(photographs, "run_job", lambda *_: None)
    monkeypatch.setattr(
        photographs, "export_bundle", lambda _, bundle, *__: shutil.copytree(demo.bundle, bundle)
    )
    result = run_photographs(
        tmp_path / "demo", "openai", (str(pictures),), SilentProgress(), TuneSettings()
    )
    assert result.frames == 6
    assert "Everyday tags on photographs" in result.page.read_text("utf-8")
    assert result.pictures.is_dir()
    assert "6, which is too few" in result.note
    assert result.shipped == ()


def test_model_is_openai_rn50() -> None:
    assert open_clip.get_pretrained_cfg(MODEL, "openai")["hf_hub"] == "timm/resnet50_clip.openai/"


def test_captions_of_the_package_name_every_everyday_tag() -> None:
    words = assets.path("tuning_captions.txt").read_text("utf-8").lower()
    assert not [tag for tag in EVERYDAY_TAGS if words.count(tag) < 20]


def test_own_pictures_need_weights() -> None:
    done = CliRunner().invoke(cli, ["demo", "--frames", "x"])
    assert done.exit_code == 2
    assert "--frames needs --pretrained" in done.output


def test_pictures_that_are_not_there_are_named_before_the_work(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    with pytest.raises(InputError, match="none: no such file"):
        run_photographs(tmp_path / "demo", "openai", (missing,), SilentProgress(), TuneSettings())
    assert not (tmp_path / "demo").exists()


def test_each_photograph_has_a_licence_and_its_tags() -> None:
    """LICENSES.md is a row a picture; what is not listed there may not ship."""
    page = (shipped.FILES / "LICENSES.md").read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in page if "|" in line]
    header, _, *rows = cells
    assert header == ["picture", "author", "licence", "source", "sha256"]
    files = {path.name: path for path in shipped.FOLDER.glob("*.jpg")}
    assert [row[0] for row in rows] == sorted(files)
    assert list(shipped.photographs()) == sorted(files)
    for name, author, licence, source, digest in rows:
        assert author
        assert licence == "CC0-1.0"
        assert re.match("(Debian package|IBM/MAX-|scikit-image) ?.*`.*`", source)
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == digest
    assert sum(path.stat().st_size for path in files.values()) <= 300_000
    assert set().union(*shipped.photographs().values()) < set(EVERYDAY_TAGS)


def test_photographs_are_small_jpegs_without_metadata() -> None:
    for path in shipped.FOLDER.glob("*.jpg"):
        with Image.open(path) as picture:
            assert (picture.format, picture.mode, max(picture.size)) == ("JPEG", "RGB", 400)
            assert not picture.getexif()


def test_a_missing_photograph_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(InputError, match=r"airplane\.jpg is missing from this installation"):
        shipped.photographs()


def test_agreement_counts_pairs() -> None:
    pictures = [
        PictureTags("a", frozenset({"cat", "dog"}), ("car", "cat", "bus"), "car"),
        PictureTags("b", frozenset({"cup"}), ("cup",), "cup"),
    ]
    counts = Agreement.of(pictures)
    assert counts == Agreement(right=2, missed=1, wrong=2, best=1)
    assert counts.micro_f1 == pytest.approx(4 / 7)
    assert Agreement.of([]).micro_f1 == 0.0

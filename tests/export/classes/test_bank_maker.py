"""Tags from their names alone: rows of every choice, added to a running tagger, and compared."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from taidpt.clip.model import ClipModel, load_clip
from taidpt.export.classes.bank_maker import CHOICES, BankMaker
from taidpt.export.cli.bank_commands import compare, make
from taidpt.export.exporter import ExportOptions, write_bundle
from taidpt.features.prompt_encoder import class_embeddings, plain_class_embeddings
from taidpt.progress import SilentProgress
from taidpt.prompts.prompts_file import PromptSettings
from taidpt.runtime import ClassBank, Tagger
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError, MissingDependencyError
from taidpt.runtime.sites import text_tower
from taidpt.runtime.sites.text_tower import TextTower
from taidpt.scores import Scoring
from taidpt.texts.tags import TagSet
from taidpt.toyworld import assets
from tests.export.test_exporter import some_prompts
from tests.runtime.sinks.senders import wait_for
from tests.taidpt.tiny import VIT, make_clip

NEW = TagSet.from_names(["umbrella", "forklift", "hard hat"])
TEXTS = ["A forklift beside a shelf.", "An umbrella and a forklift.", "Nothing of the kind."]


@pytest.fixture(scope="module")
def clip() -> ClipModel:
    return load_clip("toyworld", "embedded")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, clip: ClipModel) -> Path:
    """Prompts, captions, and a bundle whose bank is an input, all of the embedded model."""
    folder = tmp_path_factory.mktemp("home")
    some_prompts(clip).save(folder / "street.safetensors")
    (folder / "captions.txt").write_text("\n".join(TEXTS))
    options = ExportOptions(bank="input")
    write_bundle(some_prompts(clip), clip, folder / "street.taidpt", options, SilentProgress())
    return folder


def test_every_choice_gives_rows_thresholds_and_the_model(home: Path, clip: ClipModel) -> None:
    prompts = some_prompts(clip)
    maker = BankMaker(clip, Scoring(30.0, 0.4), prompts, (home / "captions.txt",))
    assert maker.choices == CHOICES
    banks = {choice: maker.make(NEW, choice) for choice in maker.choices}
    for choice, made in banks.items():
        assert made.names == NEW.names
        assert len(made.thresholds) == 3
        assert made.metadata["model"]["weights_sha256"] == clip.weights_sha256
        assert made.metadata["scoring"]["temperature"] == 30.0
        assert made.metadata["made_from"] == choice
    rows = class_embeddings(clip, NEW.names, prompts.contexts)
    np.testing.assert_allclose(banks["prompts"].local_embeddings, rows["local"], atol=1e-5)
    plain = plain_class_embeddings(clip, NEW.names, ["a photo of a {}."]).numpy()
    np.testing.assert_allclose(banks["templates"].global_embeddings, plain, atol=1e-5)
    hat = 2  # no caption names it: its centroid is the template
    np.testing.assert_allclose(banks["centroids"].global_embeddings[hat], plain[hat], atol=1e-5)
    assert not np.allclose(banks["centroids"].global_embeddings[1], plain[1], atol=1e-2)
    assert ["hard hat" in note for note in maker.notes] == [True]


def test_new_names_start_at_the_median_of_the_tuned_thresholds(clip: ClipModel) -> None:
    made = BankMaker(clip, Scoring(), some_prompts(clip)).make(NEW, "prompts")
    assert [(t.on, t.source) for t in made.thresholds] == [
        (2.5, "from texts"),
        (1.5, "from other tags"),
        (1.5, "from other tags"),
    ]
    other = BankMaker(clip, Scoring(transform="center"), some_prompts(clip)).make(NEW, "prompts")
    assert {t.source for t in other.thresholds} == {"default"}


def test_contexts_of_single_tags_do_not_carry_over(clip: ClipModel) -> None:
    shared = some_prompts(clip)
    own = {name: value.expand(3, *value.shape).clone() for name, value in shared.contexts.items()}
    prompts = dataclasses.replace(shared, contexts=own, settings=PromptSettings(16, True))
    maker = BankMaker(clip, Scoring(), prompts)
    assert maker.choices == ("templates", "templates80")
    with pytest.raises(InputError, match="have a context for each tag"):
        maker.make(NEW, "prompts")
    with pytest.raises(InputError, match="--texts FILE"):
        maker.make(NEW, "linear")


def test_a_running_tagger_takes_tags_by_their_names(home: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    with Tagger.load(home / "street.taidpt", device="cpu") as tagger:
        before = tagger(frame)
        tagger.bank.add("forklift", prompts=home / "street.safetensors")
        tagger.bank.add(["hard hat", "open door"], prompts="templates")
        assert tagger.names == (*before.vocabulary.names, "forklift", "hard hat", "open door")
        after = tagger(frame)
        np.testing.assert_allclose(after.scores[:3], before.scores, atol=1e-5)
        assert np.isfinite(after.scores).all()
        assert after.heatmap("forklift").shape == before.heatmap("dog").shape
        with pytest.raises(InputError, match="has the tag dog already"):
            tagger.bank.add("dog", prompts="templates")


def test_prompts_of_another_model_are_refused_by_both_names(home: Path, tmp_path: Path) -> None:
    some_prompts(make_clip(VIT)).save(tmp_path / "other.safetensors")
    with (
        Tagger.load(home / "street.taidpt", device="cpu") as tagger,
        pytest.raises(InputError, match=r"are of tiny random:0 .* is of toyworld embedded"),
    ):
        tagger.bank.add("forklift", prompts=tmp_path / "other.safetensors")


def test_without_a_text_tower_it_says_what_to_install(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_torch(name: str, package: str | None = None) -> object:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    with Tagger.load(home / "street.taidpt", device="cpu") as tagger:
        monkeypatch.setattr(importlib, "import_module", no_torch)
        with pytest.raises(MissingDependencyError, match="needs torch, which is not inst"):
            tagger.bank.add("forklift", prompts="templates")


def test_the_page_keeps_a_text_tower_warm_for_some_time(home: Path) -> None:
    bundle = Bundle.load(home / "street.taidpt")
    states: list[str] = []
    with TextTower(bundle, str(home / "street.safetensors"), idle_s=2.0) as tower:
        tower.on_change = lambda: states.append(tower.state)
        tower.warm()
        assert tower.state == "loading"
        bank = tower.bank(["hard hat", "open door"])
        assert bank.names == ("hard hat", "open door")
        assert bank.metadata["made_from"] == "prompts"
        with pytest.raises(InputError, match="stands twice"):
            tower.bank(["a b", "A b"])
        assert tower.bank(["forklift"]).names == ("forklift",)
        assert states == ["loading", "ready"]  # one process for all of it
        assert wait_for(lambda: tower.state == "off")


def test_a_text_tower_that_cannot_be_loaded_says_why(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_tower, "_PROGRAM", "no_such_program")
    with TextTower(Bundle.load(home / "street.taidpt"), None) as tower:
        with pytest.raises(InputError, match=r"text tower ended: .*No module named") as error:
            tower.bank(["forklift"])
        assert wait_for(lambda: tower.failure == str(error.value))
        assert tower.state == "off"


def run(command: object, *arguments: object) -> str:
    result = CliRunner().invoke(command, list(map(str, arguments)))  # type: ignore[arg-type]
    return result.output + str(result.exception or "")


def test_the_command_makes_tags_of_names(home: Path, tmp_path: Path) -> None:
    out, prompts = tmp_path / "site.bank", home / "street.safetensors"
    said = run(make, prompts, "--tags", "forklift, hard  hat", "-o", out)
    assert "2 tags, 192 dimensions" in said
    assert "from other tags" in said
    assert ClassBank.load(out).names == ("forklift", "hard hat")
    (tmp_path / "tags.txt").write_text("open door\nforklift\n")
    run(make, home / "street.taidpt", "--tags", tmp_path / "tags.txt", "-o", out)
    assert ClassBank.load(out).metadata["made_from"] == "templates"
    with Tagger.load(home / "street.taidpt", device="cpu") as tagger:
        tagger.use_bank(out)
        assert tagger.names == ("open door", "forklift")
    assert "give --tags too" in run(make, prompts, "--from", "linear", "-o", out)
    assert "stands twice" in run(make, prompts, "--tags", "a b,A b", "-o", out)
    assert "is a folder" in run(make, prompts, "-o", tmp_path)


def test_banks_are_compared_on_the_users_frames(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generator = np.random.default_rng(1)
    for number in range(3):
        pixels = generator.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    kitchen = tmp_path / "kitchen.bank"
    run(make, home / "street.safetensors", "--tags", "umbrella", "-o", kitchen)
    arguments = [home / "street.taidpt", tmp_path, "--bank", kitchen]
    arguments += ["--tags", "umbrella, forklift", "--prompts", home / "street.safetensors"]
    page, document = tmp_path / "page.html", tmp_path / "found.json"
    said = run(compare, *arguments, "--report", page, "--json", document)
    assert "kitchen.bank" in said
    assert "templates80" in said
    assert "thresholds are defaults: --calibrate" in said
    found = json.loads(document.read_text())
    assert found["frames"] == ["0.png", "1.png", "2.png"]
    assert list(found["banks"]) == ["kitchen.bank", "prompts", "templates", "templates80"]
    assert page.read_text().count("data:image/jpeg") == 3
    with Tagger.load(home / "street.taidpt", device="cpu") as tagger:
        tagger.use_bank(kitchen)
        image = np.asarray(Image.open(tmp_path / "0.png"))
        shown = f"{tagger(image)['umbrella'].score:.2f}"
    assert f"umbrella {shown}" in said.split("1.png")[0]
    assert "nothing to compare" in run(compare, *arguments[:2])
    (tmp_path / "1.png").write_bytes(b"no picture")
    broken = run(compare, *arguments)
    assert "share of 2 frames" in broken
    assert "1 of 3 pictures could not be read" in caplog.text
    few = run(compare, *arguments, "--calibrate")
    assert "frames to calibrate on: 2" in few


def test_a_calibration_that_is_a_guess_says_so(home: Path, tmp_path: Path) -> None:
    """A video's frames are nearly one: two tags on 60 of them were on in 0 % or in 60 %."""
    video, page, document = assets.path("demo.mp4"), tmp_path / "page.html", tmp_path / "found.json"
    arguments = [home / "street.taidpt", video, "--every", 10, "--tags", "sheep, bus"]
    asked = [*arguments, "--calibrate", "--report", page, "--json", document]
    said = run(compare, *asked, "--max-frames", 60)
    assert re.search(r"sheep +\d+\.\d % \?  +\d+\.\d % \?\n", said)
    assert "these 60 frames are worth 7 independent ones" in said
    assert "is unsure" in page.read_text()
    found = json.loads(document.read_text())["banks"]["templates"]
    assert found["sureness"] == {"sheep": "low", "bus": "low"}
    assert found["effective_frames"] == pytest.approx(7, abs=1)
    assert found["share_on"]["sheep"] < 0.3
    assert "?" not in run(compare, *arguments, "--max-frames", 2)

"""Methods on pictures: the store resumes, scores are what their definition says, one table."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from taidpt.cli import cli
from taidpt.clip.model import ClipModel, load_clip
from taidpt.datasets import LabelledImages
from taidpt.encoders.picture_input import PictureInput
from taidpt.evaluation import methods
from taidpt.evaluation.comparison import compare_methods, merge_curve
from taidpt.evaluation.dataset_job import DatasetJob, run_dataset_job
from taidpt.evaluation.methods import MethodInputs, check_methods, score_method
from taidpt.evaluation.plots import Drawing, draw
from taidpt.evaluation.saved_scores import evaluate_scores
from taidpt.features import picture_store
from taidpt.features.picture_store import StoreSettings, store_features
from taidpt.features.pictures import PictureFeatures, encode_pictures
from taidpt.features.prompt_encoder import plain_class_embeddings
from taidpt.metrics import MapSettings
from taidpt.progress import SilentProgress
from taidpt.prompts.prompts_file import PromptSettings, TunedPrompts
from taidpt.runtime.errors import InputError
from taidpt.score_file import ScoreFile
from taidpt.scores import global_scores, local_scores
from taidpt.texts.tags import TagSet
from taidpt.texts.templates import PLAIN_TEMPLATE
from taidpt.tuning.settings import TuneSettings
from tests.support import REPOSITORY
from tests.taidpt.store_case import few_pictures

EXACT = StoreSettings(precision="fp32", batch=4)


@pytest.fixture(scope="module")
def clip() -> ClipModel:
    return load_clip("toyworld", "embedded")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> LabelledImages:
    few = few_pictures(tmp_path_factory.mktemp("toyworld"))
    middle = len(few.classes) // 2
    everything = tuple(range(len(few.classes)))
    return replace(few, groups={"head": everything[:middle], "tail": everything[middle:]})


@pytest.fixture(scope="module")
def features(
    clip: ClipModel, images: LabelledImages, tmp_path_factory: pytest.TempPathFactory
) -> PictureFeatures:
    return store_features(clip, images, tmp_path_factory.mktemp("cache"), EXACT)


@pytest.fixture(scope="module")
def inputs(clip: ClipModel, images: LabelledImages) -> MethodInputs:
    names = images.classes
    texts = [(f"a {name} here", (index,)) for index, name in enumerate(names)]
    return MethodInputs(clip, images.tags, texts)


class Interrupting(SilentProgress):
    """Interrupts the run after some steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def advance(self, count: int = 1, detail: str = "") -> None:
        self.steps -= 1
        if not self.steps:
            raise KeyboardInterrupt


class Counting(SilentProgress):
    """Counts pictures."""

    def __init__(self) -> None:
        self.before = self.encoded = 0

    def start(self, description: str, total: int, done: int = 0) -> None:
        self.before = done

    def advance(self, count: int = 1, detail: str = "") -> None:
        self.encoded += count


def test_a_half_finished_store_goes_on(
    clip: ClipModel, images: LabelledImages, features: PictureFeatures, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        store_features(clip, images, tmp_path, EXACT, Interrupting(2))
    counting = Counting()
    stored = store_features(clip, images, tmp_path, EXACT, counting)
    assert (counting.before, counting.encoded) == (8, len(images) - 8)
    np.testing.assert_allclose(stored.patch_features, features.patch_features, atol=1e-6)
    counting = Counting()
    store_features(clip, images, tmp_path, EXACT, counting)
    assert counting.encoded == 0


def test_a_killed_store_goes_on(
    clip: ClipModel, images: LabelledImages, features: PictureFeatures, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.taidpt.store_case", str(tmp_path)]
    process = subprocess.Popen([*command, str(images.paths[0].parent.parent)], cwd=REPOSITORY)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*/state.json")) and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    counting = Counting()
    stored = store_features(clip, images, tmp_path, EXACT, counting)
    assert 0 < counting.before < len(images)
    assert counting.before + counting.encoded == len(images)
    for name in ("zero_shot", "global_features", "patch_features"):
        np.testing.assert_allclose(getattr(stored, name), getattr(features, name), atol=1e-6)


def test_the_store_tells_models_and_pictures_apart(
    clip: ClipModel, images: LabelledImages, tmp_path: Path
) -> None:
    few = images.subset(range(2))
    store_features(clip, few, tmp_path, EXACT)
    store_features(clip, images.subset([1, 0]), tmp_path, EXACT)
    store_features(clip, few, tmp_path, StoreSettings("fp16"))
    for picture in (
        PictureInput(size=96),
        PictureInput(resize="whole"),
        PictureInput(local_branch="self"),
    ):
        store_features(clip, few, tmp_path, replace(EXACT, picture=picture))
    assert len(list(tmp_path.iterdir())) == 6
    for state in tmp_path.glob("*/state.json"):
        state.write_text("{")
    with pytest.raises(InputError, match=r"state\.json: damaged; delete"):
        store_features(clip, few, tmp_path, EXACT)
    with pytest.raises(InputError, match="no pictures"):
        store_features(clip, images.subset([]), tmp_path, EXACT)


def test_what_is_stored_is_what_the_encoder_gives(
    clip: ClipModel, images: LabelledImages, features: PictureFeatures
) -> None:
    loader = picture_store.picture_loader(images, lambda frame: frame, 64)
    frames, targets = next(iter(loader))
    fresh = encode_pictures(clip, frames.numpy())
    (stored,) = features.batches(64)
    for name in ("zero_shot", "global_features", "patch_features"):
        torch.testing.assert_close(getattr(stored, name), getattr(fresh, name), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(targets.numpy(), images.targets)


def test_template_methods_are_the_baselines(
    clip: ClipModel, images: LabelledImages, features: PictureFeatures, inputs: MethodInputs
) -> None:
    (stored,) = features.batches(64)
    rows = plain_class_embeddings(clip, images.classes, [PLAIN_TEMPLATE])
    plain = score_method("zsclip", inputs, features)
    assert set(plain) == {"global"}
    np.testing.assert_allclose(plain["global"], global_scores(stored.zero_shot, rows), atol=1e-5)
    both = score_method("clipdpt", inputs, features)
    whole = global_scores(stored.global_features, rows)
    np.testing.assert_allclose(both["global"], whole, atol=1e-5)
    local = local_scores(stored.patch_features, rows, 40.0)
    np.testing.assert_allclose(both["local"], local, atol=1e-5)


def test_tuned_prompts_score_by_the_class_order_of_the_data_set(
    clip: ClipModel, images: LabelledImages, features: PictureFeatures
) -> None:
    shuffled = images.tags.tags[::-1]
    generator = torch.Generator().manual_seed(0)
    width = clip.model.token_embedding.weight.shape[1]
    contexts = {
        name: 0.02 * torch.randn(16, width, generator=generator) for name in ("global", "local")
    }
    prompts = TunedPrompts(contexts, shuffled, (), clip.identity())
    ordered = TunedPrompts(contexts, images.tags.tags, (), clip.identity())
    found = [
        score_method("taidpt", MethodInputs(clip, images.tags, prompts={"taidpt": given}), features)
        for given in (prompts, ordered)
    ]
    for head in ("global", "local"):
        np.testing.assert_allclose(found[0][head], found[1][head], atol=1e-5)
    other = MethodInputs(clip, TagSet.from_names(["unicorn"]), prompts={"taidpt": prompts})
    assert score_method("taidpt", other, features)["global"].shape == (len(images), 1)
    own = {name: context.expand(len(shuffled), -1, -1) for name, context in contexts.items()}
    shape = PromptSettings(class_specific=True)
    specific = TunedPrompts(own, shuffled, (), clip.identity(), shape)
    with pytest.raises(InputError, match="the prompts have no unicorn: their contexts are"):
        score_method(
            "taidpt", replace(other, prompts={"taidpt": specific}, used={}, rows={}), features
        )


def test_comparison_holds_every_column_and_round_trips_its_scores(
    images: LabelledImages, features: PictureFeatures, inputs: MethodInputs, tmp_path: Path
) -> None:
    methods = ("zsclip", "clipdpt", "centroids", "clipdpt+centroids")
    found = compare_methods(methods, inputs, images, lambda _: features, merge_weight=0.25)
    assert [result.name for result in found.results] == list(methods)
    transformed = {"center", "log_softmax", "log_softmax:4"}
    assert set(found.results[0].maps) == {"global", *transformed}
    assert set(found.results[1].maps) == {"global", "local", "merged", *transformed}
    assert set(found.results[1].groups) == {"head", "tail"}
    found.save_scores(tmp_path)
    again = evaluate_scores(ScoreFile.load(tmp_path / "clipdpt.npz"), 0.25)
    assert again.heads["merged"].value == pytest.approx(found.results[1].maps["merged"].value)
    table = found.markdown().splitlines()
    columns = "global | local | merged | center | log_softmax | log_softmax:4 | head | tail"
    assert table[0] == f"| method | {columns} |"
    assert len(table) == 2 + len(methods)
    assert json.loads(json.dumps(found.to_json()))["methods"]["zsclip"]["global"]["map"] > 0
    curve = merge_curve(found.results[1].scores, images.targets, MapSettings(), steps=5)
    assert curve[1] == pytest.approx((0.25, found.results[1].maps["merged"].value))
    assert merge_curve(found.results[0].scores, images.targets, MapSettings()) == []


def test_plots_are_drawn(
    images: LabelledImages, features: PictureFeatures, inputs: MethodInputs, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    found = compare_methods(("zsclip", "clipdpt"), inputs, images, lambda _: features)
    paths = draw(Drawing.of_comparison(found), tmp_path / "plots")
    assert [path.name for path in paths] == [
        "per-class.png",
        "precision-recall.png",
        "merge-weight.png",
    ]
    assert all(path.stat().st_size > 5000 for path in paths)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("zsclop",), "method 'zsclop' is not known"),
        (("zsclip+clipdpt",), "method 'zsclip' cannot be averaged"),
        ((), "no methods"),
    ],
)
def test_unknown_methods_are_named(names: tuple[str, ...], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        check_methods(names)


def test_what_a_method_needs_is_said(
    images: LabelledImages, features: PictureFeatures, clip: ClipModel
) -> None:
    bare = MethodInputs(clip, images.tags)
    for name, expected in (
        ("linear", "give --texts FILE"),
        ("taidpt", "give --texts FILE or --prompts FILE"),
        ("dualcoop", "has no prompts: give --prompts FILE"),
    ):
        with pytest.raises(InputError, match=expected):
            score_method(name, bare, features)
    with pytest.raises(InputError, match="needs --root and --model"):
        run_dataset_job(DatasetJob("voc2007", ("zsclip",)), SilentProgress())


@pytest.mark.usefixtures("few_templates")
def test_prompts_that_were_tuned_once_are_kept(
    clip: ClipModel, images: LabelledImages, features: PictureFeatures, tmp_path: Path
) -> None:
    texts = [(f"a {name} here", (index,)) for index, name in enumerate(images.classes)]
    inputs = MethodInputs(clip, images.tags, texts, keep=tmp_path)
    inputs.tuning = TuneSettings("tai", epochs=1, batch=512)
    first = score_method("tai", inputs, features)
    (kept,) = (tmp_path / "prompts").iterdir()
    stamp = kept.stat().st_mtime_ns
    again = replace(inputs, used={}, rows={})
    np.testing.assert_array_equal(score_method("tai", again, features)["global"], first["global"])
    assert kept.stat().st_mtime_ns == stamp
    other = replace(again, used={}, rows={}, tuning=replace(inputs.tuning, seed=1))
    assert not np.array_equal(score_method("tai", other, features)["global"], first["global"])
    assert len(list((tmp_path / "prompts").iterdir())) == 2


def test_templates_are_encoded_once_for_all_methods(
    clip: ClipModel,
    images: LabelledImages,
    features: PictureFeatures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded: list[int] = []

    def counted(clip: ClipModel, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
        encoded.append(len(templates))
        return plain_class_embeddings(clip, names, templates[:2])

    monkeypatch.setattr(methods, "plain_class_embeddings", counted)
    inputs = MethodInputs(clip, images.tags)
    for name in ("zsclip", "zsclip80", "clipdpt", "clipdpt80"):
        score_method(name, inputs, features)
    assert encoded == [1, 80]


def test_command_refuses_before_the_long_work(tmp_path: Path) -> None:
    command = ["research", "eval", "--dataset", "voc2007", "--root", str(tmp_path)]
    done = CliRunner().invoke(cli, [*command, "--model", "RN50", "--pretrained", "random"])
    assert isinstance(done.exception, InputError)
    assert re.match(r"ImageSets/Main not found.*$", str(done.exception))


def test_features_of_batches_are_fp32(features: PictureFeatures) -> None:
    parts = list(features.batches(5))
    assert sum(len(part.zero_shot) for part in parts) == len(features)
    assert all(isinstance(part, PictureFeatures) for part in parts)
    assert parts[0].patch_features.dtype == torch.float32

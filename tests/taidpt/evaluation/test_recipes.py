"""Recipes: their plans and texts, and whole runs on miniature data sets in official formats."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from taidpt.commands.datasets import reproduce as reproduce_command
from taidpt.datasets import class_tags
from taidpt.encoders.picture_input import PictureInput
from taidpt.evaluation import reproduction
from taidpt.evaluation.dataset_job import text_stream
from taidpt.evaluation.methods import METHOD_NAMES
from taidpt.evaluation.recipes import RECIPES, Recipe
from taidpt.evaluation.reproduction import Reproduction, ReproductionJob, SeedRun, plan, reproduce
from taidpt.metrics import mean_average_precision
from taidpt.progress import SilentProgress
from taidpt.runtime.errors import InputError
from taidpt.tuning.settings import TuneSettings
from tests.support import REPOSITORY
from tests.taidpt.datasets.official import (
    write_captions,
    write_coco,
    write_long_tail,
    write_nuswide,
    write_voc,
)

pytestmark = pytest.mark.usefixtures("few_templates")

VOC = {f"{n:06d}": [("dog" if n % 2 else "cat", 0), ("person", n % 3 // 2)] for n in range(6)}
CAPTIONS = {number: [text] for number, text in enumerate(["a dog", "a cat and a person", "a bus"])}


def small(name: str, **changes: Any) -> Recipe:
    """A recipe on the shipped model, with little work."""
    own = {"model": "toyworld", "pretrained": "embedded", "text_model": None}
    recipe = replace(RECIPES[name], **own, **changes)
    if recipe.has_texts:
        recipe = replace(recipe, tuning=TuneSettings(epochs=1, batch=64))
    run = recipe.pictures
    if run is not None:
        settings = replace(run.settings, epochs=2, batch=4)
        picture = PictureInput(64, run.picture.resize)
        recipe = replace(recipe, pictures=replace(run, settings=settings, picture=picture))
    return recipe


def run(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch, seeds: int = 1, **changes: Any
) -> Reproduction:
    monkeypatch.setitem(RECIPES, name, small(name, **changes))
    job = ReproductionJob(root, root / "cache", seeds, device="cpu")
    return reproduce(name, job, SilentProgress())


def test_every_recipe_has_a_plan() -> None:
    job = ReproductionJob(Path("data"))
    for name, recipe in RECIPES.items():
        lines = list(plan(name, job))
        assert lines[0].startswith(f"{name}: {recipe.method} on {recipe.dataset}")
        assert sum("  seed" in line for line in lines) == 3
        assert (recipe.published is None) == (recipe.source == "")
    with pytest.raises(InputError, match="no recipe 'voc2007'; there are voc2007-zsclip"):
        list(plan("voc2007", job))
    steps = "\n".join(plan("coco-novel-ensemble-5-shot", job))
    assert "tune dualcoop on train-3 (100% of the labels, 448-pixel whole pictures" in steps
    assert "combine both at rate 0.6" in steps


def test_ensembles_pair_the_text_tuned_rn50_with_the_picture_tuned_rn101() -> None:
    for name in ("voc2007-ensemble-10", "coco-novel-ensemble-1-shot", "voc-mlt-ensemble"):
        recipe = RECIPES[name]
        assert recipe.model == "RN101-quickgelu"
        job = reproduction.evaluation_job(recipe, ReproductionJob(), 0)
        assert job.model == "RN50-quickgelu"
    lines = "\n".join(plan("voc2007-ensemble-10", ReproductionJob(Path("data"))))
    assert "model RN101-quickgelu and RN50-quickgelu, weights openai" in lines


def test_another_model_replaces_both_of_a_recipe() -> None:
    job = ReproductionJob(model="toyworld")
    recipe = job.recipe("voc2007-ensemble-10")
    assert (recipe.model, recipe.text_model, recipe.pretrained) == ("toyworld", "toyworld", None)
    other = ReproductionJob(pretrained="yfcc15m").recipe("voc2007-taidpt")
    assert (other.model, other.pretrained) == ("RN50-quickgelu", "yfcc15m")


def test_weights_that_cannot_be_had_fail_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, tag: str) -> None:
        raise InputError(f"weights {tag} of {name} are not here")

    monkeypatch.setattr("taidpt.clip.source.check_available", refuse)
    for name in ("voc2007-taidpt", "coco2014-ensemble-10"):
        with pytest.raises(InputError, match=r"weights openai of RN.* are not here"):
            reproduce(name, ReproductionJob(Path("no data here")), SilentProgress())


def test_the_held_out_texts_and_the_note_stand_beside_a_figure() -> None:
    runs = (SeedRun(88.0, {}, ()),)
    found = Reproduction("voc-mlt-taidpt", RECIPES["voc-mlt-taidpt"], ReproductionJob(), runs)
    lines = list(found.lines())
    assert "of these texts 0% were held out for thresholds" in lines
    assert any("computes exactly voc2007-taidpt" in line for line in lines)
    assert any("exactly voc2007-taidpt" in line for line in plan(found.name, ReproductionJob()))
    toy = reproduction.evaluation_job(RECIPES["toyworld-taidpt"], ReproductionJob(), 0)
    paper = reproduction.evaluation_job(RECIPES["coco2014-taidpt"], ReproductionJob(), 0)
    assert toy.tuning is not None
    assert paper.tuning is not None
    assert (toy.tuning.held_out, paper.tuning.held_out) == (0.1, 0.0)
    assert paper.tuning.lr == 1e-4


def test_what_is_published_has_its_recipe() -> None:
    published = {
        "voc2007-zsclip": 75.9,
        "coco2014-zsclip": 47.5,
        "voc2007-taidpt": 88.3,
        "coco2014-taidpt": 65.1,
        "nuswide-taidpt": 46.5,
        "voc2007-taidpt-rn101": 88.9,
        "coco2014-taidpt-rn101": 68.0,
        "nuswide-taidpt-rn101": 46.5,
        "voc2007-ensemble-10": 93.3,
        "coco2014-ensemble-10": 81.5,
        "voc2007-adapt": 91.7,
        "coco2014-adapt": 73.0,
        "nuswide-adapt": 49.2,
        "coco-novel-taidpt": 59.2,
        "voc-mlt-taidpt": 83.75,
        "coco-mlt-taidpt": 56.23,
    }
    assert {name: RECIPES[name].published for name in published} == published
    known = {f"voc2007-ensemble-{percent}" for percent in range(10, 100, 10)}
    assert known <= set(RECIPES)


def test_every_method_has_a_row_and_a_recipe_in_the_document() -> None:
    text = (REPOSITORY / "docs/benchmarks.md").read_text("utf-8")
    toy = [name for name, recipe in RECIPES.items() if recipe.dataset == "toyworld"]
    assert {RECIPES[name].method for name in toy} >= set(METHOD_NAMES)
    assert [name for name in toy if f"| `{name}` |" not in text] == []
    for name, recipe in RECIPES.items():
        if recipe.published is not None:
            assert f"`{name}`: {recipe.published} ({recipe.source})" in text


def test_the_leak_is_filtered_and_named(tmp_path: Path) -> None:
    write_captions(tmp_path, "train2017", {1: ["a dog"], 2: ["a cat"]})
    write_coco(tmp_path, "val2014", {2: [(17, 0)]})
    recipe, found = RECIPES["coco2014-taidpt"], []
    for leak_free in (False, True):
        job = ReproductionJob(tmp_path, leak_free=leak_free)
        found.append(list(text_stream(reproduction.evaluation_job(recipe, job, 0))))
    assert found == [["a dog", "a cat"], ["a dog"]]
    job = ReproductionJob(tmp_path)
    assert any("test pictures of val2014" in line for line in plan("coco2014-taidpt", job))
    assert not any("val2014" in line for line in plan("voc2007-taidpt", job))


def test_partial_labels_and_their_ensemble_run_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_voc(tmp_path, 2007, "trainval", VOC)
    write_voc(tmp_path, 2007, "test", VOC)
    write_captions(tmp_path, "train2017", CAPTIONS)
    found = run("voc2007-ensemble-10", tmp_path, monkeypatch, seeds=2)
    losses = [seed.tables[1]["tuning"]["dualcoop"]["losses"] for seed in found.runs]
    assert losses[0] != losses[1], "each seed has labels, contexts and an order of its own"
    found.save(tmp_path / "record.json")
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["recipe"]["pictures"]["known"] == 0.1
    assert record["versions"]["torch"]
    text, image = record["runs"][0]["tables"]
    assert text["tuning"]["taidpt"]["settings"]["epochs"] == 1
    pictures = image["tuning"]["dualcoop"]["pictures_from"]
    assert pictures["augmentation"] == "crop"
    assert pictures["picture"] == asdict(PictureInput(64, "whole"))
    prompts = sorted((tmp_path / "cache/recipes").iterdir())
    stamps = [path.stat().st_mtime_ns for path in prompts]
    run("voc2007-dualcoop-10", tmp_path, monkeypatch, seeds=2)
    again = sorted((tmp_path / "cache/recipes").iterdir())
    assert [path.stat().st_mtime_ns for path in again] == stamps, "recipes share their prompts"


def write_different_pictures(root: Path, objects: dict[str, list[tuple[str, int]]]) -> None:
    """VOC2007's trainval split; the pictures of `write_voc` are all the same."""
    folder = write_voc(root, 2007, "trainval", objects)
    generator = np.random.default_rng(0)
    for number in objects:
        pixels = generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{number}.jpg")


@pytest.mark.parametrize("name", ["voc2007-adapt", "voc2007-piaa"])
def test_the_unlabelled_train_split_teaches(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_voc(tmp_path, 2007, "test", VOC)
    with pytest.raises(InputError, match="trainval"):
        run(name, tmp_path, monkeypatch)
    train = {f"1{n:05d}": VOC[f"{n % 6:06d}"] for n in range(18)}
    write_different_pictures(tmp_path, train)
    found = run(name, tmp_path, monkeypatch)
    (table,) = found.runs[0].tables
    assert 0 < found.runs[0].value <= 100
    method = table["methods"][name.partition("-")[2]]
    assert ("merged" in method) == name.endswith("adapt")
    assert any("PIAA, ICML 2026" in line for line in found.lines())
    steps = "\n".join(plan(name, ReproductionJob(tmp_path)))
    assert "learn from the train pictures without their labels" in steps
    write_different_pictures(tmp_path, {number: [("bus", 0)] for number in train})
    again = run(name, tmp_path, monkeypatch)
    assert again.runs[0].value == found.runs[0].value, "labels of the train split were read"


@pytest.mark.parametrize("dataset", ["coco2014", "nuswide"])
def test_recipes_of_piaa_read_official_formats(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, number in (("Train", "train2014"), ("Test", "val2014")):
        if dataset == "nuswide":
            lines = {f"a\\{n}.jpg": {"dog" if n % 2 else "cat"} for n in range(1, 7)}
            write_nuswide(tmp_path, lines, split)
        else:
            write_coco(tmp_path, number, {n: [(18 if n % 2 else 17, 0)] for n in range(1, 7)})
    found = run(f"{dataset}-piaa", tmp_path, monkeypatch)
    assert 0 < found.runs[0].value <= 100


def test_few_shots_take_an_episode_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = class_tags("coco2014").names
    dog, cat = names.index("dog"), names.index("cat")
    write_coco(tmp_path, "train2014", {n: [(18 if n % 2 else 17, 0)] for n in range(1, 7)})
    write_coco(tmp_path, "val2014", {7: [(18, 0)], 8: [(17, 0)], 9: []})
    write_captions(tmp_path, "train2017", {1: ["a dog"], 2: ["a cat"], 7: ["a dog"]})
    folder = tmp_path / "data_for_augmentation"
    folder.mkdir()
    for number, rows in ((1, {dog: [0], cat: [1]}), (2, {dog: [2, 4], cat: [3]})):
        path = folder / f"1shotRun{number}ClassIdxDict.pkl"
        path.write_bytes(pickle.dumps(rows))
    found = run("coco-novel-ensemble-1-shot", tmp_path, monkeypatch, seeds=2)
    tables = [seed.tables[1]["tuning"]["dualcoop"] for seed in found.runs]
    assert [table["pictures"]["count"] for table in tables] == [2, 3]
    assert tables[1]["pictures_from"]["data_set"] == "coco laso 1-shot run 2"
    assert any("test pictures of val2014" in line for line in found.lines())


def test_long_tailed_results_are_given_by_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = class_tags("voc2007").names
    dog, cat, person = (names.index(name) for name in ("dog", "cat", "person"))
    groups = {"head": {person}, "middle": {cat}, "tail": set(range(20)) - {person, cat}}
    lists = tmp_path / "appendix/VOCdevkit/longtail2012"
    write_long_tail(lists, groups, ["000001"], "img_id.txt")
    write_voc(tmp_path, 2007, "test", VOC)
    write_captions(tmp_path, "train2017", CAPTIONS)
    found = run("voc-mlt-taidpt", tmp_path, monkeypatch)
    table = found.runs[0].tables[0]["methods"]["taidpt"]["merged"]["per_class"]
    expected = {"head": table["person"], "medium": table["cat"], "tail": table["dog"]}
    assert found.runs[0].groups == pytest.approx(expected)
    assert dog in groups["tail"]
    assert [line.split(":")[0] for line in list(found.lines())[1:4]] == [
        "  head",
        "  medium",
        "  tail",
    ]


def test_nuswide_takes_narratives_and_its_own_temperature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {"a\\1.jpg": {"dog"}, "a\\2.jpg": {"cat"}, "a\\3.jpg": set()}
    write_nuswide(tmp_path, pictures)
    rows = [json.dumps({"caption": text}) for text in ("a dog", "a cat by the window")]
    path = tmp_path / "open_images_train_v6_localized_narratives-00000-of-00001.jsonl"
    path.write_text("\n".join(rows))
    found = run("nuswide-taidpt", tmp_path, monkeypatch)
    assert found.runs[0].tables[0]["tuning"]["taidpt"]["texts"]["named"] == 2
    lines = list(found.lines())
    assert "texts: OpenImages localized narratives, at most 1,000 a class" in lines
    assert "of these texts 0% were held out for thresholds" in lines


def test_a_shared_context_serves_unseen_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = class_tags("coco2014").names
    seen, unseen = {0, names.index("cat")}, {names.index("dog")}
    objects: dict[int, list[tuple[int, int]]] = {n: [(1 if n % 2 else 17, 0)] for n in range(1, 7)}
    categories = {1: "person", 17: "cat"}
    train = "instances_train2014_seen_48_17.json"
    write_coco(tmp_path, "train2014", objects, categories, train)
    test = {7: [(18, 0)], 8: [(1, 0), (17, 0)]}
    gzsi = "instances_val2014_gzsi_48_17.json"
    write_coco(tmp_path, "val2014", test, {**categories, 18: "dog"}, gzsi)
    split = pickle.dumps({"train": seen, "test": unseen})
    (tmp_path / "coco/annotations/cls_ids.pickle").write_bytes(split)
    found = run("coco-48-17-dualcoop", tmp_path, monkeypatch)
    assert set(found.runs[0].groups) == {"seen", "unseen"}
    assert found.runs[0].groups["unseen"] > 0


def test_an_ensemble_is_of_both_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc(tmp_path, 2007, "trainval", VOC)
    write_voc(tmp_path, 2007, "test", VOC)
    write_captions(tmp_path, "train2017", CAPTIONS)
    seen: list[Any] = []
    combine = reproduction.ensemble_scores

    def watch(text: Any, image: Any, rate: float) -> Any:
        seen.append((text, image, combine(text, image, rate)))
        return seen[-1][2]

    monkeypatch.setattr(reproduction, "ensemble_scores", watch)
    found = run("voc2007-ensemble-90", tmp_path, monkeypatch, rate=0.25)
    ((text, image, combined),) = seen
    low, high = text.merged().min(), text.merged().max()
    first = (text.merged() - low) / (high - low)
    low, high = image.global_scores.min(), image.global_scores.max()
    second = (image.global_scores - low) / (high - low)
    np.testing.assert_allclose(combined.global_scores, 0.75 * first + 0.25 * second, atol=1e-6)
    value = mean_average_precision(combined.global_scores, combined.targets).value
    assert found.maps == (value,)


def test_ours_stands_beside_the_published_figure() -> None:
    recipe = RECIPES["voc2007-taidpt"]
    runs = tuple(SeedRun(value, {}, ()) for value in (88.0, 89.0))
    found = Reproduction("voc2007-taidpt", recipe, ReproductionJob(), runs)
    expected = "voc2007-taidpt: ours 88.500 ± 0.707 (88.000, 89.000), published 88.3"
    assert next(found.lines()).startswith(expected)
    table = reproduction.markdown([found]).splitlines()
    row = (
        "| `voc2007-taidpt` | published 88.3 (Guo et al. 2023) | 88.500 ± 0.707 | 88.000, 89.000 |"
    )
    assert table[2] == row


def test_the_command_plans_lists_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def output(*arguments: str) -> str:
        done = CliRunner().invoke(reproduce_command, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    dry = output("voc2007-taidpt", "--dry-run", "-o", str(tmp_path / "out"))
    assert dry.startswith("voc2007-taidpt: taidpt on voc2007, published 88.3")
    assert len(output().splitlines()) == len(RECIPES)
    kinds = output("toyworld-ensemble-*", "--dry-run", "--seeds", "1")
    assert sum(line.startswith("toyworld-ensemble-") for line in kinds.splitlines()) == 3
    assert not (tmp_path / "out").exists()
    write_voc(tmp_path, 2007, "test", VOC)
    monkeypatch.setitem(RECIPES, "voc2007-zsclip", small("voc2007-zsclip"))
    options = ("--seeds", "1", "--root", str(tmp_path), "--cache", str(tmp_path / "cache"))
    table = output("voc2007-zsclip", *options, "-o", str(tmp_path / "out"), "--markdown", "-")
    record = json.loads((tmp_path / "out/voc2007-zsclip.json").read_text())
    row = f"| `voc2007-zsclip` | published 75.9 (re-run by others) | {record['maps'][0]:.3f} |"
    assert row in table

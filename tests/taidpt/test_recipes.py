"""Recipes: the plan, the texts they take, and a run on the toy world with its record."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from taidpt.benchmark import text_stream
from taidpt.progress import SilentProgress
from taidpt.recipes import RECIPES, Reproduction, job_of, plan, reproduce
from taidpt.runtime.errors import InputError
from tests.taidpt.datasets.official import write_captions, write_coco


def test_every_recipe_has_a_plan_and_a_job() -> None:
    for name, recipe in RECIPES.items():
        lines = list(plan(name, Path("data"), 3, leak_free=False))
        assert lines[0].startswith(f"{name}: {recipe.method} on {recipe.dataset}")
        assert sum("seed" in line for line in lines) == 4
        assert job_of(name, Path("data"), None, leak_free=True).methods == (recipe.method,)
    with pytest.raises(InputError, match="no recipe 'voc'"):
        list(plan("voc", None, 1, leak_free=False))


def test_the_leak_is_filtered_and_named(tmp_path: Path) -> None:
    write_captions(tmp_path, "train2017", {1: ["a dog"], 2: ["a cat"]})
    write_coco(tmp_path, "val2014", {2: [(17, 0)]})
    leaky = job_of("coco2014-taidpt", tmp_path, None, leak_free=False)
    clean = job_of("coco2014-taidpt", tmp_path, None, leak_free=True)
    assert list(text_stream(leaky)) == ["a dog", "a cat"]
    assert list(text_stream(clean)) == ["a dog"]
    lines = list(plan("coco2014-taidpt", tmp_path, 1, leak_free=False))
    assert any("describe test pictures of val2014" in line for line in lines)


def test_a_recipe_runs_and_keeps_its_record(tmp_path: Path) -> None:
    texts = tmp_path / "captions.txt"
    texts.write_text("a dog and a car\na cat on a bus\n")
    job = replace(job_of("toyworld-linear", None, tmp_path, leak_free=False), texts=(texts,))
    found = reproduce("toyworld-linear", job, 2, SilentProgress())
    assert len(found.maps) == 2
    path = tmp_path / "record.json"
    found.save(path)
    record = json.loads(path.read_text())
    assert record["maps"] == list(found.maps)
    assert len(record["runs"]) == 2
    assert record["runs"][0]["methods"]["linear"]["merged"]["map"] == found.maps[0]
    assert "nothing published" in next(found.lines())


def test_ours_stands_beside_the_published_figure() -> None:
    recipe = RECIPES["voc2007-taidpt"]
    found = Reproduction("voc2007-taidpt", recipe, (88.0, 89.0), "texts", ())
    expected = "voc2007-taidpt: ours 88.500 ± 0.707 (88.000, 89.000), published 88.3"
    assert next(found.lines()).startswith(expected)


def test_dry_run_prints_the_plan_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "taidpt", "reproduce", "voc2007-taidpt", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.startswith("voc2007-taidpt: taidpt on voc2007")
    assert "published 88.3" in done.stdout
    assert not list(tmp_path.iterdir())

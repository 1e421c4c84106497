"""Prompts tuned on a miniature VOC in its official layout, then evaluated on its test split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from taidpt.cli import cli
from taidpt.encoders.picture_input import PictureInput
from taidpt.evaluation.dataset_job import DatasetJob, run_dataset_job
from taidpt.features.picture_store import StoreSettings
from taidpt.progress import SilentProgress
from taidpt.prompts.prompts_file import PromptSettings, TunedPrompts
from taidpt.runtime.errors import InputError
from taidpt.tuning.picture_job import PictureTuneJob, run_picture_job
from taidpt.tuning.settings import settings_of
from tests.taidpt.datasets.official import write_voc
from tests.taidpt.tuning.test_tuner import InterruptAt

OBJECTS = {f"{n:06d}": [("dog" if n % 2 else "cat", 0), ("person", n % 3 // 2)] for n in range(6)}


def job(root: Path, method: str, **more: object) -> PictureTuneJob:
    settings = replace(settings_of(method), epochs=2, seed=int(more.pop("seed", 0)))  # type: ignore[call-overload]
    given = {"cache": root / "cache", "store": StoreSettings("fp32", 4), **more}
    output = root / f"{method}.safetensors"
    return PictureTuneJob(
        "voc2007",
        output,
        root,
        "train",
        "toyworld",
        "embedded",
        settings,
        **given,  # type: ignore[arg-type]
    )


def test_prompts_from_pictures_are_evaluated_beside_other_methods(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "trainval", OBJECTS)
    write_voc(tmp_path, 2007, "test", OBJECTS)
    jobs = [job(tmp_path, "dualcoop", known=0.5), job(tmp_path, "coop")]
    for each in jobs:
        run_picture_job(each, SilentProgress())
    record = TunedPrompts.load(jobs[0].output).provenance["pictures_from"]
    assert record == {
        "data_set": "voc2007 trainval",
        "known": 0.5,
        "shots": None,
        "augmentation": "none",
        "picture": {"size": None, "resize": "crop", "local_branch": "value"},
    }
    found = run_dataset_job(
        DatasetJob(
            "voc2007",
            ("clipdpt", "coop", "dualcoop"),
            tmp_path,
            "toyworld",
            "embedded",
            prompts=tuple(each.output for each in jobs),
            cache=tmp_path / "cache",
        ),
        SilentProgress(),
    )
    columns = {result.name: set(result.maps) for result in found.results}
    assert "merged" in columns["coop"]
    assert columns["dualcoop"] == {"global", "center", "log_softmax", "log_softmax:4"}
    lines = list(found.lines())
    assert lines[1].startswith("17 of 20 classes have no positive, left out: aeroplane, ")
    with pytest.raises(InputError, match="a second prompts file of method 'coop'"):
        run_dataset_job(
            DatasetJob("toyworld", ("coop",), prompts=(jobs[1].output, jobs[1].output)),
            SilentProgress(),
        )


def test_prompts_tuned_at_another_size_are_evaluated_at_it(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "trainval", OBJECTS)
    write_voc(tmp_path, 2007, "test", OBJECTS)
    picture = PictureInput(64, "whole")
    store = StoreSettings("fp32", 4, picture=picture)
    each = job(tmp_path, "dualcoop", store=store, augment="crop", shots=1)
    prompts = run_picture_job(each, SilentProgress())
    assert prompts.picture == TunedPrompts.load(each.output).picture == picture
    assert prompts.provenance["pictures_from"]["augmentation"] == "crop"
    assert prompts.provenance["pictures"]["count"] == 2
    bench = DatasetJob(
        "voc2007",
        ("zsclip", "dualcoop"),
        tmp_path,
        "toyworld",
        "embedded",
        prompts=(each.output,),
        cache=tmp_path / "cache",
    )
    found = run_dataset_job(bench, SilentProgress())
    assert [result.name for result in found.results] == ["zsclip", "dualcoop"]
    sizes = {path.shape[1] for path in map(np.load, tmp_path.glob("cache/*/patch_features.npy"))}
    assert len(sizes) == 2, "each method sees pictures of its own size"
    small = replace(bench, methods=("zsclip",), store=store)
    with pytest.raises(InputError, match="zsclip pools with positions"):
        run_dataset_job(small, SilentProgress())


def test_unfinished_run_on_pictures_resumes(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "trainval", OBJECTS)
    each = job(tmp_path, "coop", augment="cutout")
    with pytest.raises(KeyboardInterrupt):
        run_picture_job(each, InterruptAt(2))
    with pytest.raises(InputError, match="--resume continues it"):
        run_picture_job(each, SilentProgress())
    resumed = run_picture_job(replace(each, resume=True), SilentProgress())
    again = run_picture_job(each, SilentProgress())
    assert torch.equal(resumed.contexts["local"], again.contexts["local"])


def test_share_of_known_labels_is_checked(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "trainval", OBJECTS)
    with pytest.raises(InputError, match="share of known labels should be above 0"):
        run_picture_job(job(tmp_path, "dualcoop", known=0.0), SilentProgress())


def test_command_uses_the_prompt_shape_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_voc(tmp_path, 2007, "trainval", OBJECTS)
    command = ["research", "tune-pictures", "--dataset", "voc2007"]
    options = ["--root", str(tmp_path), "--model", "toyworld", "--pretrained", "embedded"]
    options += ["--method", "coop", "--epochs", "1", "--loss", "focal", "--context-tokens", "4"]
    options += ["--name-position", "front", "--class-specific", "--shots", "2", "-o", "c.st"]
    done = CliRunner().invoke(cli, [*command, *options, "--cache", "cache"])
    assert done.exit_code == 0, done.output
    assert "no picture of voc2007 trainval shows 17 of 20 classes: aeroplane" in done.stderr
    assert "c.st: 20 tags by coop, mean loss" in done.stderr
    prompts = TunedPrompts.load(tmp_path / "c.st")
    assert prompts.settings == PromptSettings(4, class_specific=True, name_position="front")
    assert prompts.contexts["global"].shape[:2] == (20, 4)
    assert prompts.provenance["settings"]["loss"] == "focal"
    refused = CliRunner().invoke(cli, [*command, "-o", "c.st"])
    assert isinstance(refused.exception, InputError)
    assert "'voc2007' needs --root and --model" in str(refused.exception)

"""Prompts tuned on a miniature VOC in its official layout, then evaluated on its test split."""

from __future__ import annotations

from pathlib import Path

import pytest

from taidpt.benchmark import BenchmarkJob, run_benchmark
from taidpt.picture_store import StoreSettings
from taidpt.picture_tuning import PictureTuneJob, run_picture_job
from taidpt.progress import SilentProgress
from taidpt.prompts import TunedPrompts
from taidpt.runtime.errors import InputError
from tests.taidpt.datasets.official import write_voc

OBJECTS = {f"{n:06d}": [("dog" if n % 2 else "cat", 0), ("person", n % 3 // 2)] for n in range(6)}


def job(root: Path, method: str, **more: object) -> PictureTuneJob:
    output = root / f"{method}.safetensors"
    given = {"epochs": 2, "cache": root / "cache", "store": StoreSettings("fp32", 4), **more}
    return PictureTuneJob("voc2007", root, method, "toyworld", "embedded", output, **given)  # type: ignore[arg-type]


def test_prompts_from_pictures_evaluate_beside_the_others(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "trainval", OBJECTS)
    write_voc(tmp_path, 2007, "test", OBJECTS)
    jobs = [job(tmp_path, "dualcoop", known=0.5), job(tmp_path, "coop")]
    for each in jobs:
        run_picture_job(each, SilentProgress())
    record = TunedPrompts.load(jobs[0].output).provenance["pictures_from"]
    assert record == {
        "data_set": "voc2007 trainval",
        "known": 0.5,
        "augmentation": "none, centre crop",
    }
    found = run_benchmark(
        BenchmarkJob(
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
    assert columns["dualcoop"] == {"global", "center", "log_softmax"}
    lines = list(found.lines())
    assert lines[1].startswith("17 of 20 classes have no positive: aeroplane, bicycle")
    with pytest.raises(InputError, match="a second prompts file of method 'coop'"):
        run_benchmark(
            BenchmarkJob("toyworld", ("coop",), prompts=(jobs[1].output, jobs[1].output)),
            SilentProgress(),
        )


def test_the_share_of_known_labels_is_checked(tmp_path: Path) -> None:
    write_voc(tmp_path, 2007, "trainval", OBJECTS)
    with pytest.raises(InputError, match="share of known labels should be above 0"):
        run_picture_job(job(tmp_path, "dualcoop", known=0.0), SilentProgress())

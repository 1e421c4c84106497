"""The same archive on a real Ray of two workers on this machine; one start of Ray for all."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taidpt.runtime.archive.folder import ArchiveFolder
from taidpt.runtime.archive.job import run_archive
from taidpt.runtime.archive.request import ArchiveJob
from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.errors import InputError
from taidpt.runtime.tag.request import Outputs, TagJob
from tests.runtime.archive.in_process import archive_here
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_video
from tests.support import require


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    tiny_bundle(folder / "street.taidpt", TinySpec(thresholds=(1.0,)))
    (folder / "in").mkdir()
    for index in range(3):
        colour_video(folder / "in" / f"{index}.mp4", 30 + index)
    (folder / "in" / "broken.mp4").write_bytes(b"\0\1 broken")
    return folder


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    """A cluster of one node with three cores: two for workers, one for Ray's own tasks."""
    # Ray gives its agents 15 s to start, which two cores that run other tests may not have.
    require("ray-cluster", "TAIDPT_RAY" in os.environ, "set TAIDPT_RAY=1 on a machine that is free")
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # or a token is written into the home folder
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def job(folder: Path, output: str, **options: Any) -> ArchiveJob:
    bundle, sources = str(folder / "street.taidpt"), (str(folder / "in"),)
    tag = TagJob(bundle, sources, Outputs(top=3), BackendOptions("cpu"))
    return ArchiveJob(tag, str(folder / output), "global", shard_clips=1, workers=2, **options)


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    archive = ArchiveFolder.load(path)
    tables = {name: archive.read(name).to_pylist() for name in ("events", "frames", "errors")}
    return {name: sorted(found, key=str) for name, found in tables.items()}


def test_no_cluster_is_one_line(folder: Path) -> None:
    require("ray", importlib.util.find_spec("ray") is not None, "pip install 'taidpt[ray]'")
    with pytest.raises(
        InputError, match=r"--ray 127\.0\.0\.1:9: no Ray cluster answers .*ray start"
    ):
        run_archive(job(folder, "none", ray="127.0.0.1:9"))
    assert ArchiveFolder.load(folder / "none").shards() == []


@pytest.mark.slow
@pytest.mark.usefixtures("_ray")
def test_ray_gives_the_rows_of_one_machine(folder: Path) -> None:
    """A run, the run after a loss of two parts, and the class in a pipeline of one's own."""
    archive_here(job(folder, "here"))
    expected = rows(folder / "here")
    run_archive(job(folder, "there", ray="auto"))
    assert rows(folder / "there") == expected
    archive = ArchiveFolder.load(folder / "there")
    kept = {shard: archive.part("frames", shard).stat().st_mtime_ns for shard in archive.shards()}
    lost = archive.shards()[:2]
    for shard in lost:
        archive.part("manifest", shard).unlink()  # as a kill leaves it
    run_archive(job(folder, "there", ray="auto"))
    assert rows(folder / "there") == expected
    again = {
        shard for shard in kept if archive.part("frames", shard).stat().st_mtime_ns != kept[shard]
    }
    assert again == set(lost)

    import ray

    from taidpt.runtime.archive import RayTagger

    clips = [{"clip": str(path)} for path in sorted((folder / "in").iterdir())]
    found = ray.data.from_items(clips).map_batches(
        RayTagger,
        fn_constructor_args=(str(folder / "street.taidpt"),),
        fn_constructor_kwargs={"device": "cpu"},
        batch_size=2,
        concurrency=1,
    )
    events = found.take_all()
    failed = [row for row in events if row["error"] is not None]
    assert [Path(row["clip"]).name for row in failed] == ["broken.mp4"]
    assert failed[0]["tag"] is None
    names = ("clip", "tag", "start_s", "end_s", "open")
    assert sorted(tuple(row[name] for name in names) for row in events if row["tag"]) == sorted(
        tuple(row[name] for name in names) for row in expected["events"]
    )

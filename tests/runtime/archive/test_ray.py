"""The same archive on a real Ray on this machine: a worker decodes, another one tags.

Ray starts once for all tests.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
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
from tests.runtime.archive.ray_cluster import Cluster, ray_cluster
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_video
from tests.support import require

# Kills of the loop; `TAIDPT_KILLS=50` is the long form.
KILLS = int(os.environ.get("TAIDPT_KILLS", "2"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, eight clips and a file that is none, and their archive by one process."""
    folder = tmp_path_factory.mktemp("ray")
    tiny_bundle(folder / "street.taidpt", TinySpec(thresholds=(1.0,)))
    (folder / "in").mkdir()
    for index in range(8):
        colour_video(folder / "in" / f"{index}.mp4", 30 + index)
    (folder / "in" / "broken.mp4").write_bytes(b"\0\1 broken")
    archive_here(job(folder, "here"))
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node with three cores: two for workers, one for Ray's own tasks."""
    with ray_cluster(3) as cluster:
        yield cluster


def job(folder: Path, output: str, **options: Any) -> ArchiveJob:
    bundle, sources = str(folder / "street.taidpt"), (str(folder / "in"),)
    tag = TagJob(bundle, sources, Outputs(top=3), BackendOptions("cpu"))
    return ArchiveJob(tag, str(folder / output), "global", shard_clips=1, workers=2, **options)


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    archive = ArchiveFolder.load(path)
    tables = {name: archive.read(name).to_pylist() for name in ("events", "frames", "errors")}
    return {name: sorted(found, key=str) for name, found in tables.items()}


def start(folder: Path, cluster: Cluster) -> subprocess.Popen[bytes]:
    """`taidpt archive --ray` as a process of its own."""
    arguments = [folder / "street.taidpt", folder / "in", "-o", folder / "there", "--top", "3"]
    arguments += ["--features", "global", "--shard-clips", "1", "--workers", "1", "--device", "cpu"]
    command = [sys.executable, "-m", "taidpt", "archive", *map(str, arguments)]
    return subprocess.Popen([*command, "--ray", cluster.address], stderr=subprocess.PIPE)


def test_no_cluster_is_one_line(folder: Path) -> None:
    require("ray", importlib.util.find_spec("ray") is not None, "pip install 'taidpt[ray]'")
    with pytest.raises(
        InputError, match=r"--ray 127\.0\.0\.1:9: no Ray cluster answers .*ray start"
    ):
        run_archive(job(folder, "none", ray="127.0.0.1:9"))
    assert ArchiveFolder.load(folder / "none").shards() == []


@pytest.mark.slow
def test_kills_under_ray_lose_only_the_shards_in_hand(folder: Path, cluster: Cluster) -> None:
    """The run itself is killed, then both workers of the next, and so on; the rows are of one."""
    manifest, kept = folder / "there" / "manifest", dict[str, int]()
    expected = rows(folder / "here")
    for kill in range(KILLS):
        process = start(folder, cluster)
        while len(list(manifest.glob("*.parquet"))) <= len(kept) and process.poll() is None:
            time.sleep(0.001)
        if kill % 2 == 0:
            process.kill()
            process.communicate()
        else:  # Ray starts other workers, and the run goes on
            for stage in ("_Decoder", "_Inference"):
                for pid in cluster.processes(stage):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()
            assert rows(folder / "there") == expected
        now = {path.name: path.stat().st_mtime_ns for path in manifest.glob("*.parquet")}
        assert kept.items() <= now.items(), "a finished shard was written again"
        kept = now
        if len(kept) == 9:  # all are whole: begin again
            assert rows(folder / "there") == expected
            if kill < KILLS - 1:
                shutil.rmtree(folder / "there")
                kept = {}
    if len(kept) < 9:
        assert start(folder, cluster).wait(300) == 0
        assert rows(folder / "there") == expected


@pytest.mark.slow
def test_the_class_in_a_pipeline_of_ones_own(folder: Path, cluster: Cluster) -> None:
    import ray

    from taidpt.archive import RayTagger

    ray.init(cluster.address, log_to_driver=False)
    try:
        clips = [{"clip": str(path)} for path in sorted((folder / "in").iterdir())]
        found = ray.data.from_items(clips).map_batches(
            RayTagger,
            fn_constructor_args=(str(folder / "street.taidpt"),),
            fn_constructor_kwargs={"device": "cpu"},
            batch_size=2,
            concurrency=1,
        )
        events = found.take_all()
    finally:
        ray.shutdown()
    failed = [row for row in events if row["error"] is not None]
    assert [Path(row["clip"]).name for row in failed] == ["broken.mp4"]
    assert failed[0]["tag"] is None
    names = ("clip", "tag", "start_s", "end_s", "open")
    assert sorted(tuple(row[name] for name in names) for row in events if row["tag"]) == sorted(
        tuple(row[name] for name in names) for row in rows(folder / "here")["events"]
    )

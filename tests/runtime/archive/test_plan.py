"""What is left to tag, and handing it out: by names of shards, and after kills in between."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.archive_scale import Recorder, VirtualWorkers
from taidpt.runtime.archive import folder as folder_module
from taidpt.runtime.archive.folder import ArchiveFolder, PartWriter
from taidpt.runtime.archive.inputs import Clip, Shard, make_shards
from taidpt.runtime.archive.job import plan, shard_results
from taidpt.runtime.archive.rows import RowMaker
from taidpt.runtime.archive.schema import TABLES, FeatureLayout
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from tests.runtime.tiny import TinySpec, tiny_bundle

ROWS = RowMaker(FeatureLayout("none", (4,), 1), 3)
IDENTITY: dict[str, Any] = {
    "bundle": {"name": "a", "sha256": "b"},
    "bank": None,
    "options": {"features": "none", "smoothing_s": 0.3, "min_on_s": 0.2, "min_off_s": 0.5},
}


def clips(*names: str, size: int = 9) -> list[Clip]:
    return sorted(Clip(f"/in/{name}.mp4", f"/in/{name}.mp4", size, 7) for name in names)


def write(archive: ArchiveFolder, shard: Shard, failed: str = "") -> None:
    """The parts of a shard; a clip whose name holds `failed` has an error."""
    with PartWriter(archive, shard.name, ROWS.schemas) as writer:
        for clip in shard.clips:
            if failed and failed in clip.name:
                writer.write("errors", ROWS.error(clip.name, "hangs", 0))
            writer.write("manifest", ROWS.manifest(clip, 5, 1.0))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[ArchiveFolder]:
    manifest = Bundle.load(tiny_bundle(tmp_path / "a.taidpt", TinySpec())).manifest
    with ArchiveFolder.writing(tmp_path / "tags", IDENTITY, manifest) as archive:
        yield archive


def left(archive: ArchiveFolder, found: list[Clip]) -> list[str]:
    shards = plan(archive, found, IDENTITY, 2)
    return [Path(clip.name).stem for shard in shards for clip in shard.clips]


def refuse_to_read(*arguments: Any) -> None:
    raise AssertionError(f"a part is read: {arguments}")


def test_parts_are_read_only_where_names_do_not_say_it(
    archive: ArchiveFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = clips(*"abcdef")
    first, second, third = make_shards(found, IDENTITY, 2)
    write(archive, first)
    write(archive, third)
    with monkeypatch.context() as patch:
        patch.setattr(ArchiveFolder, "read_part", refuse_to_read)
        assert left(archive, found) == ["c", "d"]
    write(archive, second)
    assert left(archive, clips(*"abcdefg", "0")) == ["0", "g"]  # other groups: all are read
    changed = sorted([*clips(*"abcef"), *clips("d", size=8)])
    assert left(archive, changed) == ["d"]
    assert set(archive.clips()) == {clip.name for clip in clips(*"abcef")}


def test_a_shard_that_was_cut_stands_for_its_clips_no_more(archive: ArchiveFolder) -> None:
    """As --retry-errors leaves it: the clip has not changed, so the shard's name has not either."""
    found = clips(*"abcd")
    for shard in make_shards(found, IDENTITY, 2):
        write(archive, shard, failed="b")
    assert left(archive, found) == []
    archive.drop(archive.failed())
    assert left(archive, found) == ["b"]
    assert archive.failed() == set()
    archive.drop({clip.name for clip in found})
    assert left(archive, found) == list("abcd")
    assert not list((archive.path / "manifest").iterdir())


@pytest.mark.parametrize("rewritten", range(len(TABLES)))
def test_kills_while_clips_are_removed(
    rewritten: int, tmp_path: Path, archive: ArchiveFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any table: the next start finishes it; no clip lacks its rows or has them twice."""
    (shard,) = make_shards(clips(*"ab"), IDENTITY, 2)
    write(archive, shard, failed="b")
    real, calls = folder_module._part_stream, 0

    def killed(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > rewritten:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_part_stream", killed)
        with pytest.raises(KeyboardInterrupt):
            archive.drop(archive.failed())
    archive._tidy()  # the next run's start
    assert [row["clip"] for row in archive.read("manifest").to_pylist()] == ["/in/a.mp4"]
    assert archive.failed() == set()
    assert left(archive, clips(*"ab")) == ["b"]


def test_a_manifest_without_its_other_parts_is_not_whole(archive: ArchiveFolder) -> None:
    found = clips(*"abcd")
    first, second = make_shards(found, IDENTITY, 2)
    write(archive, first)
    write(archive, second)
    archive.part("frames", first.name).unlink()
    archive._tidy()
    assert archive.shards() == [second.name]
    assert left(archive, found) == ["a", "b"]


def test_shards_are_handed_out_a_few_at_a_time() -> None:
    shards = list(make_shards(clips(*map(str, range(100, 180))), IDENTITY, 1))
    handed: list[str] = []

    def taken() -> Iterator[Shard]:
        for shard in shards:
            handed.append(shard.name)
            yield shard

    gate = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        results = shard_results(pool, lambda shard: gate.wait() and shard.name, taken(), 4)
        gate.set()
        first = next(results)
        assert len(handed) <= 5
        assert sorted([first, *results]) == sorted(shard.name for shard in shards)

        def fail(shard: Shard) -> None:
            raise InputError(f"{shard.name}: the disk is full")

        with pytest.raises(InputError, match="the disk is full"):
            list(shard_results(pool, fail, iter(shards), 4))
        assert list(shard_results(pool, fail, iter(()), 4)) == []


def test_a_simulated_fleet_repeats_nothing(archive: ArchiveFolder) -> None:
    """Stragglers, lost tries and a kill half way, as the benchmark simulates them."""
    found = clips(*map(str, range(1000, 1600)))
    recorder = Recorder(archive)
    planned: list[set[str]] = []
    for share in (0.5, 1.0):
        shards = plan(archive, found, IDENTITY, 2)
        planned.append({shard.name for shard in shards})
        workers = VirtualWorkers(20, failing=0.1)
        results = shard_results(workers, recorder.record, workers.then_wait(shards), workers.most)
        whole = set(itertools.islice(results, int(share * len(shards))))
        assert workers.lost > 0
    assert workers.end_h > workers.busy_h / 20 > 0  # the last ones leave workers idle
    first, second = planned
    assert len(first) == 300
    assert 100 < len(second) < 151  # what was in hand is whole or not
    assert second < first
    assert whole == second
    assert left(archive, found) == []

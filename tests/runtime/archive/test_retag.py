"""`taidpt archive retag`: the rows of another bank, as tagging the clips with it gives them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taidpt.runtime.archive.folder import ArchiveFolder
from taidpt.runtime.archive.request import ArchiveJob
from taidpt.runtime.archive.retag import retag
from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.tag.request import Outputs, TagJob
from tests.runtime.archive.in_process import archive_here
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_video

NEW = TinySpec(names=("bus", "tram", "bicycle"), seed=11, thresholds=(0.9,), bank_as="input")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, two clips, a picture, another bank, and archives by features."""
    folder = tmp_path_factory.mktemp("retag")
    tiny_bundle(folder / "street.taidpt", TinySpec(bank_as="input"))
    NEW.bank().save(folder / "new.bank")
    (folder / "in").mkdir()
    for index in range(2):
        colour_video(folder / "in" / f"{index}.mp4", 60 + index)
    (folder / "in" / "broken.mp4").write_bytes(b"\0\1 broken")
    for kind in ("patches", "patches-int8", "global"):
        tag_clips(folder, kind, kind)
    tag_clips(folder, "new", "none", str(folder / "new.bank"))
    return folder


def tag_clips(folder: Path, output: str, features: str, bank: str | None = None) -> None:
    bundle, sources = str(folder / "street.taidpt"), (str(folder / "in"),)
    tag = TagJob(bundle, sources, Outputs(top=9), BackendOptions("cpu"), bank=bank)
    archive_here(ArchiveJob(tag, str(folder / output), features, workers=1, shard_clips=2))


def rows(path: Path, table: str) -> list[dict[str, Any]]:
    found = ArchiveFolder.load(path).read(table).to_pylist()
    return sorted(found, key=lambda row: [str(row[key]) for key in list(row)[:3]])


def scores(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Tags and scores of all frames, each sorted by name."""
    best = [sorted(row["top"], key=lambda entry: entry["tag"]) for row in rows(path, "frames")]
    names = [[entry["tag"] for entry in frame] for frame in best]
    return np.array(names), np.array([[entry["score"] for entry in frame] for frame in best])


@pytest.mark.parametrize(("kind", "atol"), [("patches", 2e-3), ("patches-int8", 2e-2)])
def test_scores_and_events_are_those_of_the_new_bank(
    folder: Path, tmp_path: Path, kind: str, atol: float
) -> None:
    retag(str(folder / kind), str(folder / "new.bank"), str(tmp_path / "out"))
    names, found = scores(tmp_path / "out")
    names_expected, expected = scores(folder / "new")
    assert (names == names_expected).all()
    np.testing.assert_allclose(found, expected, atol=atol)
    assert np.std(expected) > 10 * atol
    for table in ("errors", "manifest"):
        assert rows(tmp_path / "out", table) == rows(folder / "new", table)
    events = rows(folder / "new", "events")
    assert events
    assert [
        (row["clip"], row["tag"], row["start_s"], row["end_s"], row["open"])
        for row in rows(tmp_path / "out", "events")
    ] == [(row["clip"], row["tag"], row["start_s"], row["end_s"], row["open"]) for row in events]


def test_global_features_give_global_scores(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    retag(str(folder / "global"), str(folder / "new.bank"), str(tmp_path / "out"))
    assert "holds global features alone, so scores are those of whole" in capsys.readouterr().err
    manifest = ArchiveFolder.load(folder / "patches").manifest
    alone = dataclasses.replace(
        manifest, scoring=dataclasses.replace(manifest.scoring, merge_weight=0.0)
    )
    archive = ArchiveFolder.load(folder / "patches")
    facts = {**archive.facts, "bundle_manifest": alone.to_json()}
    copy = tmp_path / "weightless"
    with ArchiveFolder.writing(copy, facts["identity"], alone):
        for table in ("events", "frames", "errors", "manifest"):
            for shard in archive.shards():
                target = copy / table / f"{shard}.parquet"
                target.write_bytes(archive.part(table, shard).read_bytes())
    retag(str(copy), str(folder / "new.bank"), str(tmp_path / "expected"))
    np.testing.assert_allclose(scores(tmp_path / "out")[1], scores(tmp_path / "expected")[1])


def test_a_rerun_scores_what_is_new(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    for expected in ("3 clips, 121 frames scored", "3 clips, 0 frames scored"):
        retag(str(folder / "patches"), str(folder / "new.bank"), out)
        assert capsys.readouterr().out == f"{out}: {expected}\n"
    archive = ArchiveFolder.load(out)
    for shard in archive.shards():
        archive.part("manifest", shard).unlink()  # as a kill leaves it
    retag(str(folder / "patches"), str(folder / "new.bank"), out)
    assert capsys.readouterr().out == f"{out}: 3 clips, 121 frames scored\n"


def test_bad_input(folder: Path, tmp_path: Path) -> None:
    bank, out = folder / "new.bank", str(tmp_path / "out")
    other = dataclasses.replace(
        NEW.bank(), metadata={"model": {"name": "RN50", "weights_sha256": "ab" * 32}}
    )
    other.save(tmp_path / "other.bank")
    narrow = dataclasses.replace(NEW, dim=8)
    narrow.bank().save(tmp_path / "narrow.bank")
    for archive, given, text in (
        (folder / "new", bank, "holds no features; tag it again with --features global or"),
        (folder / "patches", tmp_path / "other.bank", r"other\.bank: was made with RN50"),
        (folder / "patches", tmp_path / "narrow.bank", "its rows have 8 dimensions"),
        (folder / "in", bank, "in: not an archive"),
        (folder / "patches", tmp_path / "none.bank", r"none\.bank: cannot read the bank"),
    ):
        with pytest.raises(InputError, match=text):
            retag(str(archive), str(given), out)
        assert not Path(out).exists()
    with pytest.raises(InputError, match="is the archive itself"):
        retag(str(folder / "patches"), str(bank), str(folder / "in" / ".." / "patches"))
    with pytest.raises(InputError, match="was tagged with scores_of left out, and now"):
        retag(str(folder / "patches"), str(bank), str(folder / "new"))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "archive.json").write_text('{"schema": "taidpt-archive/1"}')
    with pytest.raises(BundleError, match="'identity' should be an object, got nothing"):
        retag(str(tmp_path / "damaged"), str(bank), out)
    facts = ArchiveFolder.load(folder / "patches").facts
    facts["identity"]["options"]["features"] = "all"
    (tmp_path / "damaged" / "archive.json").write_text(json.dumps(facts))
    with pytest.raises(BundleError, match="'features' should be one of none, global, patches"):
        retag(str(tmp_path / "damaged"), str(bank), out)


def test_parts_that_are_damaged(folder: Path, tmp_path: Path) -> None:
    archive = ArchiveFolder.load(folder / "global")
    with ArchiveFolder.writing(
        tmp_path / "copy", archive.facts["identity"], archive.manifest
    ) as copy:
        for shard in archive.shards():
            copy.part("manifest", shard).write_bytes(b"PAR1 not a table")
        with pytest.raises(InputError, match=r"cannot be read: .*; remove .*, and its clips are"):
            copy.clips()

"""The bundle: atomic writing, checks at load, and no half bundle for a reader."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taidpt.runtime.bundle import writer as bundle_writer
from taidpt.runtime.bundle.bundle import (
    BANK_FILE,
    MODEL_FILE,
    PARITY_FILE,
    Bundle,
    BundleWriter,
)
from taidpt.runtime.bundle.manifest import MANIFEST_FILE, Manifest
from taidpt.runtime.errors import BundleError, InputError
from tests.runtime.tiny import NAMES, TinySpec, tiny_bundle, tiny_manifest
from tests.support import REPOSITORY

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def path(tmp_path: Path, bundle_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "street.taidpt"))


def edit(path: Path, change: Change) -> None:
    document = json.loads((path / MANIFEST_FILE).read_text("utf-8"))
    change(document)
    (path / MANIFEST_FILE).write_text(json.dumps(document), "utf-8")


def left_overs(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir() if entry.name != path.name)


def test_a_written_bundle_loads_unchanged(path: Path) -> None:
    bundle = Bundle.load(path)
    assert bundle.names == NAMES
    assert set(bundle.manifest.files) == {MODEL_FILE, BANK_FILE, PARITY_FILE}
    assert bundle.verify_hashes() == ()
    assert bundle.bank.names == NAMES
    written = Manifest.from_bytes(bundle.manifest.to_bytes(), "again")
    assert written == bundle.manifest
    assert bundle.manifest.scoring.temperature == 40
    assert bundle.manifest.tags[0].synonyms == ("alias of cat",)
    assert left_overs(path) == []


def test_unknown_keys_are_tolerated(path: Path) -> None:
    def add(document: dict[str, Any]) -> None:
        document["future"] = {"x": 1}
        document["tags"][0]["colour"] = "red"
        document["input"]["note"] = "later"

    edit(path, add)
    assert Bundle.load(path).names == NAMES


def tiled(corners: list[list[int]]) -> dict[str, object]:
    """Keys of an input that is cut into tiles of 8 pixels, at corners in patches of 4."""
    view = {"kind": "tiles", "tile_side": 8, "patch_stride": 4, "corners": corners}
    return {"resize": "both_sides", "crop": "none", "view": view}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema=2), "schema 2 is newer than this version"),
        (lambda d: d.update(schema="1"), "'schema' should be a whole number"),
        (lambda d: d.update(kind="zip"), "'kind' should be 'taidpt-bundle', got \"zip\""),
        (lambda d: d.pop("scoring"), "'scoring' should be an object, got nothing"),
        (lambda d: d["scoring"].update(temperature=0), "scoring: temperature should be above 0"),
        (
            lambda d: d["scoring"].update(merge_weight=2),
            "scoring: merge weight should be from 0 to 1",
        ),
        (
            lambda d: d["scoring"].update(score_transform="cube"),
            "scoring: score transform 'cube': expected one of none, center",
        ),
        (lambda d: d["input"].update(height=0), "'height' should be a whole number of at least 1"),
        (lambda d: d["input"].update(mean=[1, 2]), "'mean' should be three numbers"),
        (lambda d: d["input"].update(format="yuv"), "'format' should be one of rgb_u8_nhwc"),
        (lambda d: d["input"].update(view={"kind": "round"}), "'kind' should be one of crop, who"),
        (lambda d: d["input"].update(view={"kind": "wide"}), "'resize' should be one of both_side"),
        (lambda d: d["input"].update(resize="both_sides"), "'resize' should be one of shortest_s"),
        (lambda d: d["input"].update(tiled([[0, -1]])), "'corners' should be a list of pairs of"),
        (lambda d: d["input"].update(tiled([])), "'corners' should be 1 to 64 tiles"),
        (lambda d: d["input"].update(tiled([[0, 3]])), "'view' should be tiles inside the input"),
        (lambda d: d["model"].update(grid=[0, 1]), r"'grid' should be \[rows, columns\]"),
        (lambda d: d["graph"].update(file="x.onnx"), "'file' should be one of model.onnx, got"),
        (lambda d: d["graph"].update(outputs=["scores"]), "with scores and patch_features"),
        (lambda d: d.update(tags=[]), "the tag list is empty"),
        (lambda d: d["tags"][1].update(name="cat"), "'cat' is listed twice"),
        (lambda d: d["tags"][1].update(name=" "), "tags\\[1\\]: 'name' should be a tag's name"),
        (lambda d: d["tags"].reverse(), "its tags differ from those of bank.safetensors"),
        (lambda d: d["tags"][2]["threshold"].update(off=9), "'off' should be at most"),
        (lambda d: d["tags"][2]["threshold"].update(on="high"), "'on' should be a finite number"),
        (lambda d: d["files"].pop(BANK_FILE), "lists no bank.safetensors"),
        (lambda d: d["files"].update({"../x": {"size": 1, "sha256": ""}}), "stay inside"),
        (lambda d: d["files"].update({"/etc/hosts": {"size": 1, "sha256": ""}}), "stay inside"),
        (lambda d: d["files"].update({"a\\b": {"size": 1, "sha256": ""}}), "stay inside"),
        (lambda d: d["files"].update({"a\nb": {"size": 1, "sha256": ""}}), "stay inside"),
        (lambda d: d["files"].update({"gone": {"size": 1, "sha256": ""}}), "gone: missing"),
        (lambda d: d["files"][MODEL_FILE].update(size=5), "the manifest says 5"),
        (lambda d: d["files"][MODEL_FILE].update(sha256="0"), "its content was changed"),
    ],
)
def test_a_hand_edited_manifest_is_refused_in_one_line(
    path: Path, change: Change, message: str
) -> None:
    edit(path, change)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.load(path)
    assert "\n" not in str(caught.value)
    assert "street.taidpt" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": NaN}', "\udcff"])
def test_a_manifest_that_is_not_a_json_object_is_refused(path: Path, text: str) -> None:
    (path / MANIFEST_FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.load(path)


def test_truncated_missing_and_changed_files_are_refused(path: Path) -> None:
    model = path / MODEL_FILE
    whole = model.read_bytes()
    model.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=r"model\.onnx: has \d+ bytes.*truncated"):
        Bundle.load(path)
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"model\.onnx: its content was changed"):
        Bundle.load(path)
    model.unlink()
    with pytest.raises(BundleError, match=r"model\.onnx: missing"):
        Bundle.load(path)


def test_a_link_out_of_the_bundle_is_refused(path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    (path / MODEL_FILE).rename(outside)
    (path / MODEL_FILE).symlink_to(outside)
    with pytest.raises(BundleError, match="leads out of the bundle"):
        Bundle.load(path)


def test_other_folders_and_files_are_not_bundles(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such bundle"):
        Bundle.load(tmp_path / "none.taidpt")
    with pytest.raises(BundleError, match=r"not a bundle, it has no manifest\.json"):
        Bundle.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="a bundle is a folder"):
        Bundle.load(tmp_path / "file")


def test_verify_hashes_finds_changes_that_loading_misses(tmp_path: Path) -> None:
    spec = TinySpec()
    big = os.urandom(5 << 20)
    path = tmp_path / "big.taidpt"
    with BundleWriter(path, base=tiny_bundle(tmp_path / "base.taidpt", spec)) as writer:
        writer.write("engines/big.plan", big)
        writer.commit(tiny_manifest(spec, spec.bank()))
    (path / "engines/big.plan").write_bytes(big[:-1] + bytes([big[-1] ^ 1]))
    assert Bundle.load(path).verify_hashes() == ("engines/big.plan",)


def test_replacing_removes_the_old_bundle_and_no_commit_keeps_it(path: Path) -> None:
    first = Bundle.load(path)
    with BundleWriter(path) as writer:
        writer.write(MODEL_FILE, b"half a model")
    assert Bundle.load(path).manifest == first.manifest
    tiny_bundle(path, TinySpec(seed=5))
    second = Bundle.load(path)
    assert second.manifest.files[MODEL_FILE] != first.manifest.files[MODEL_FILE]
    assert not first.is_current()
    assert second.is_current()
    assert left_overs(path) == []


def test_two_renames_replace_a_bundle_without_renameat2(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_writer, "exchange", lambda first, second: False)
    tiny_bundle(path, TinySpec(names=("one", "two")))
    assert Bundle.load(path).names == ("one", "two")
    assert left_overs(path) == []


def test_a_cut_between_two_renames_is_repaired_at_load(path: Path) -> None:
    path.rename(path.with_name(".street.taidpt.old-1234"))
    assert Bundle.load(path).names == NAMES
    assert left_overs(path) == []


KILLED_EXPORT = """
import os, signal, sys
from pathlib import Path
from taidpt.runtime.bundle.bundle import BundleWriter
from tests.runtime.tiny import TinySpec, tiny_manifest
spec = TinySpec(seed=9)
writer = BundleWriter(Path(sys.argv[1]))
writer.write("model.onnx", b"x" * 100000)
spec.bank().save(writer.path("bank.safetensors"))
if sys.argv[2] == "late":
    import taidpt.runtime.bundle.writer as module
    module._swap = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    writer.commit(tiny_manifest(spec, spec.bank()))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["early", "late"])
def test_the_next_export_removes_the_folder_of_a_killed_one(path: Path, moment: str) -> None:
    before = Bundle.load(path).manifest
    command = [sys.executable, "-c", KILLED_EXPORT, str(path), moment]
    done = subprocess.run(command, cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(left_overs(path)) == 1
    assert Bundle.load(path).manifest == before
    tiny_bundle(path, TinySpec(seed=3))
    assert left_overs(path) == []


def test_the_folder_of_a_running_writer_is_kept(path: Path) -> None:
    with BundleWriter(path) as slow:
        slow.write("model.onnx", b"x")
        tiny_bundle(path, TinySpec(seed=3))
        assert (slow.folder / "model.onnx").read_bytes() == b"x"
    assert left_overs(path) == []


def test_targets_that_must_not_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="exists and is not a bundle"):
        BundleWriter(tmp_path / "notes")
    with pytest.raises(InputError, match="does not exist"):
        BundleWriter(tmp_path / "no" / "where.taidpt")
    with BundleWriter(tmp_path / "new.taidpt") as writer:
        with pytest.raises(BundleError, match="stay inside"):
            writer.write("../evil", b"x")
        with pytest.raises(BundleError, match=r"'model.onnx' is not in its files"):
            writer.commit(tiny_manifest(TinySpec(), TinySpec().bank()))
    assert not (tmp_path / "new.taidpt").exists()


def test_a_file_that_the_manifest_does_not_list_is_refused(path: Path) -> None:
    with pytest.raises(BundleError, match="has no file 'nothing'"):
        Bundle.load(path).file("nothing")


def test_a_base_is_copied_and_not_changed(path: Path, tmp_path: Path) -> None:
    before = Bundle.load(path)
    with BundleWriter(tmp_path / "copy.taidpt", base=path) as writer:
        writer.write(PARITY_FILE, b'{"schema": 1, "new": true}')
        writer.commit(before.manifest)
    assert Bundle.load(path).verify_hashes() == ()
    copy = Bundle.load(tmp_path / "copy.taidpt")
    assert copy.file(PARITY_FILE).read_bytes() == b'{"schema": 1, "new": true}'
    assert copy.manifest.files[MODEL_FILE] == before.manifest.files[MODEL_FILE]


def test_unlisted_files_of_a_base_are_not_copied(path: Path) -> None:
    (path / ".manifest.json.tmp-12ab").write_bytes(b"half a manif")
    (path / "engines").mkdir()
    (path / "engines" / "half.engine").write_bytes(b"half an engine")
    with BundleWriter(path, base=path) as writer:
        writer.write(PARITY_FILE, b"{}")
        writer.commit()
    assert {p.name for p in path.rglob("*")} == {*Bundle.load(path).manifest.files, "manifest.json"}


def test_a_damaged_file_of_the_base_is_refused(path: Path) -> None:
    """Flipped bytes in a file too large to be hashed at each load stay found."""
    spec = TinySpec()
    with BundleWriter(path, base=path) as writer:
        writer.write("engines/big.plan", os.urandom(5 << 20))
        writer.commit(tiny_manifest(spec, spec.bank()))
    with (path / "engines/big.plan").open("r+b") as stream:
        stream.write(b"flipped")
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match=r"changed or damaged: engines/big\.plan; export"):
        Bundle.load(path).require_whole()
    writing = pytest.raises(BundleError, match=r"changed or damaged: engines/big\.plan; export")
    with BundleWriter(path, base=path) as writer, writing:
        writer.commit()
    assert (path / "manifest.json").read_bytes() == before


def test_thresholds_written_meanwhile_are_not_lost(path: Path) -> None:
    with BundleWriter(path, base=path) as writer:
        writer.write(PARITY_FILE, b"{}")
        bundle = Bundle.load(path)
        changed = dataclasses.replace(bundle.manifest, provenance={"calibration": {"frames": 9}})
        bundle.with_manifest(changed)
        with pytest.raises(BundleError, match="changed by another command meanwhile; run this"):
            writer.commit()
    assert Bundle.load(path).manifest == changed


def test_a_staged_bundle_is_complete_and_hidden(path: Path) -> None:
    before = Bundle.load(path)
    with BundleWriter(path, base=path) as writer:
        writer.write("engines/a.engine", b"engine")
        writer.stage()
        staged = Bundle.load(writer.folder).require_whole()
        assert "engines/a.engine" in staged.manifest.files
        assert Bundle.load(path).manifest == before.manifest
    assert Bundle.load(path).manifest == before.manifest
    assert left_overs(path) == []


READER = """
import sys, time
from taidpt.runtime.bundle.bundle import Bundle
end = time.monotonic() + 1.5
count = 0
while time.monotonic() < end:
    bundle = Bundle.load(sys.argv[1])
    assert bundle.names in {("one", "two"), ("three", "four", "five")}, bundle.names
    count += 1
print(count)
"""


@pytest.mark.parametrize("exchange", [True, False])
def test_a_reader_never_sees_a_half_bundle(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "busy.taidpt"
    specs = [TinySpec(names=("one", "two")), TinySpec(names=("three", "four", "five"))]
    tiny_bundle(path, specs[0])
    if not exchange:
        monkeypatch.setattr(bundle_writer, "exchange", lambda first, second: False)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(path)], stdout=subprocess.PIPE, text=True
    )
    turn = 0
    while reader.poll() is None:
        turn += 1
        tiny_bundle(path, specs[turn % 2])
    output, _ = reader.communicate()
    assert reader.returncode == 0
    assert int(output) > 3
    assert turn > 3
    assert left_overs(path) == []

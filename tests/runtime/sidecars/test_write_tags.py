"""`taidpt archive write-tags`: sidecars beside pictures and videos, as exiftool reads them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taidpt.runtime.archive.folder import ArchiveFolder
from taidpt.runtime.archive.request import ArchiveJob
from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.errors import InputError
from taidpt.runtime.sidecars.write_tags import write_tags
from taidpt.runtime.tag.request import Outputs, TagJob
from tests.runtime.archive.in_process import archive_here
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_video
from tests.support import require

NAMES = ("car", "dog", "bicycle", "tram")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo library, and the archive of it; files that no other test writes to."""
    folder = tmp_path_factory.mktemp("library")
    photos = folder / "photos" / "2026"
    photos.mkdir(parents=True)
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"IMG_{index}.jpg")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(photos / "IMG_0.png")
    colour_video(photos / "clip.mp4", 12)
    (photos / "broken.mp4").write_bytes(b"\0\1 not a video")
    bundle = tiny_bundle(folder / "lively.taidpt", TinySpec(names=NAMES, thresholds=(0.5,), seed=3))
    tag_photos(folder, bundle)
    return folder


def tag_photos(folder: Path, bundle: Path) -> None:
    tag = TagJob(str(bundle), (str(folder / "photos"),), Outputs(top=4), BackendOptions("cpu"))
    archive_here(ArchiveJob(tag, str(folder / "tags"), workers=1, shard_clips=3))


@pytest.fixture
def library(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The photos of a copy of the library; its archive, `tags`, names them by the copy's paths."""
    shutil.copytree(made / "photos", tmp_path / "photos")
    shutil.copytree(made / "tags", tmp_path / "tags")
    real = ArchiveFolder.read_part

    def moved(self: ArchiveFolder, *arguments: Any) -> Any:
        table = real(self, *arguments)
        clips = [name.replace(str(made), str(tmp_path)) for name in table["clip"].to_pylist()]
        return table.set_column(table.schema.get_field_index("clip"), "clip", [clips])

    monkeypatch.setattr(ArchiveFolder, "read_part", moved)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos" / "2026"


def expected() -> dict[str, set[str]]:
    """File → its tags, of the archive."""
    rows = ArchiveFolder.load("tags").read("events").to_pylist()
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(Path(row["clip"]).name, set()).add(row["tag"])
    return found


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def exiftool(*arguments: str | Path) -> Any:
    require("exiftool", shutil.which("exiftool") is not None, "apt install libimage-exiftool-perl")
    command = ["exiftool", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def keywords(folder: Path) -> dict[str, tuple[set[str], ...]]:
    """Sidecar → its three lists, as exiftool reads them."""
    names = ("Subject", "HierarchicalSubject", "TagsList")
    options = (*(f"-XMP:{name}" for name in names), "-json", "-struct", "-ext", "xmp", folder)
    rows = json.loads(exiftool(*options) or "[]")
    found = {}
    for row in rows:
        values = [row.get(name, []) for name in names]
        lists = [[value] if isinstance(value, str) else value for value in values]
        found[Path(row["SourceFile"]).name] = tuple(map(set, lists))
    return found


def test_exiftool_reads_the_tags(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(library)
    write_tags("tags", "full")
    tags = expected()
    assert set(tags) >= {"IMG_0.jpg", "clip.mp4"}
    assert len({frozenset(found) for found in tags.values()}) > 1  # not one answer for all
    assert keywords(library) == {f"{name}.xmp": (found,) * 3 for name, found in tags.items()}
    after = state(library)
    assert before.items() <= after.items(), "a picture was touched"
    write_tags("tags", "full")
    assert state(library) == after
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"tags: {len(tags)} sidecars written, {5 - len(tags)} as they were"
    assert lines[1] == "tags: 0 sidecars written, 5 as they were"
    write_tags("tags", "full", remove=True)
    assert state(library) == before


def test_sidecars_of_exiftool_keep_their_content(library: Path) -> None:
    """A sidecar with keywords, a rating and a caption, before and after."""
    sidecar = library / "IMG_0.jpg.xmp"
    exiftool("-XMP-dc:Subject=Grandma", "-Rating=4", "-Description=a\nb", sidecar)
    described = exiftool("-a", "-G1", "-XMP:all", "-struct", sidecar)
    write_tags("tags", "full")
    (subject, hierarchical, tags_list) = keywords(library)[sidecar.name]
    assert subject == {"Grandma"} | expected()["IMG_0.jpg"]
    assert not hierarchical | tags_list
    exiftool("-overwrite_original", "-XMP-dc:Subject+=beach", sidecar)  # it keeps our record
    write_tags("tags", "full", remove=True)
    assert keywords(library)[sidecar.name][0] == {"Grandma", "beach"}
    exiftool("-overwrite_original", "-XMP-dc:Subject-=beach", sidecar)
    assert exiftool("-a", "-G1", "-XMP:all", "-struct", sidecar) == described


def test_stems_are_shared(library: Path, caplog: pytest.LogCaptureFixture) -> None:
    tags = expected()
    shared = tags["IMG_0.jpg"] | tags.get("IMG_0.png", set())
    write_tags("tags", "stem")
    assert keywords(library)["IMG_0.xmp"][0] == shared
    assert not (library / "IMG_0.jpg.xmp").exists()
    assert not caplog.messages
    write_tags("tags", "full")
    assert "have a sidecar with the other name alone" in caplog.messages[-1]
    assert caplog.messages[-1].endswith("--sidecar stem writes into them")


def test_a_dry_run_writes_nothing(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(library)
    (library / "IMG_1.jpg").unlink()
    write_tags("tags", "full", dry_run=True)
    assert state(library).items() <= before.items()
    assert "sidecars would be written" in (line := capsys.readouterr().out)
    assert line.endswith(", 1 files are not here\n")


def test_damaged_sidecars_are_left_alone(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is one line; the others are written, and the exit code says so."""
    damaged, pipe = library / "IMG_0.jpg.xmp", library / "clip.mp4.xmp"
    damaged.write_bytes(b"<x:xmpmeta><rdf:RDF>")
    os.mkfifo(pipe)
    text = r"^2 sidecars were left as they are; the first: .*IMG_0\.jpg\.xmp: is damaged \("
    with pytest.raises(InputError, match=text):
        write_tags("tags", "full")
    assert damaged.read_bytes() == b"<x:xmpmeta><rdf:RDF>"
    assert pipe.is_fifo()
    assert f"tags: {len(expected()) - 2} sidecars written" in capsys.readouterr().out
    assert (library / "IMG_1.jpg.xmp").exists()


def test_bytes_that_are_not_utf8(made: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    name = os.fsencode(photos) + b"/caf\xe9.jpg"
    shutil.copy(made / "photos" / "2026" / "IMG_0.jpg", name)
    tag_photos(tmp_path, made / "lively.taidpt")
    write_tags(str(tmp_path / "tags"), "full")
    assert Path(os.fsdecode(name + b".xmp")).exists()


def test_no_archive_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an archive"):
        write_tags(str(tmp_path), "full")

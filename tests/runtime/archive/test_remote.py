"""Clips at addresses of fsspec, and lists of sources."""

from __future__ import annotations

import importlib.util
import io
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from taidpt.cli import cli
from taidpt.runtime.archive import remote as remote_module, worker as worker_module
from taidpt.runtime.archive.folder import ArchiveFolder
from taidpt.runtime.archive.inputs import find_clips
from taidpt.runtime.archive.request import ArchiveJob
from taidpt.runtime.archive.worker import ClipWorker
from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.errors import BackendError, InputError, MissingDependencyError
from taidpt.runtime.tag.request import Outputs, TagJob
from tests.runtime.archive.in_process import archive_here
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_video
from tests.support import require

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, and recordings of which one is broken."""
    folder = tmp_path_factory.mktemp("remote")
    tiny_bundle(folder / "lively.taidpt", TinySpec(thresholds=(1.0,)))
    (folder / "in" / "yard").mkdir(parents=True)
    for name in ("a.mp4", "yard/b.mp4"):
        colour_video(folder / "in" / name, 12)
    (folder / "in" / "broken.mp4").write_bytes(b"\0\1 not a video")
    (folder / "in" / "letter.txt").write_text("dear")
    return folder


@pytest.fixture
def memory(folder: Path) -> Iterator[Any]:
    """fsspec's file system in memory, with the recordings."""
    system = fsspec.filesystem("memory")
    for path in filter(Path.is_file, (folder / "in").rglob("*")):
        system.pipe(f"/bucket/{path.relative_to(folder)}", path.read_bytes())
    yield system
    system.store.clear()


def job(folder: Path, output: Path | str, *sources: str, **options: Any) -> ArchiveJob:
    tag = TagJob(str(folder / "lively.taidpt"), sources, Outputs(top=3), BackendOptions("cpu"))
    return ArchiveJob(tag, str(output), workers=1, shard_clips=2, **options)


def rows(path: Path, prefix: str) -> dict[str, list[dict[str, Any]]]:
    """All tables but the manifest's times, names without a prefix."""
    found = {}
    for table in ("events", "frames", "errors"):
        content = ArchiveFolder.load(path).read(table).to_pylist()
        for row in content:
            assert row["clip"].startswith(prefix)
            row["clip"] = row["clip"].removeprefix(prefix)
            if "reason" in row:
                row["reason"] = row["reason"].replace(prefix, "")
        found[table] = sorted(content, key=str)
    return found


@pytest.fixture(scope="module")
def here(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The rows of the recordings where they are."""
    output = tmp_path_factory.mktemp("here") / "tags"
    archive_here(job(folder, output, str(folder / "in")))
    found = rows(output, str(folder / "in"))
    assert found["events"]
    return found


@pytest.mark.usefixtures("memory")
def test_addresses_give_the_rows_of_files(
    folder: Path, here: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "tags"
    for line in ("3 clips, 24 frames, 1 of them with errors", "0 clips, 0 frames, 3 were there"):
        archive_here(job(folder, output, "memory://bucket/in"))
        assert f"{output}: {line}\n" in capsys.readouterr().out
    assert rows(output, "memory://bucket/in") == here


def test_a_server_of_s3(
    folder: Path, here: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto's, by s3fs; neither is in an extra, since users choose the packages of their buckets."""
    present = all(importlib.util.find_spec(name) for name in ("moto", "s3fs", "flask_cors"))
    require("s3", present, "pip install 'moto[s3]' flask flask-cors s3fs")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "joe")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
        system = fsspec.filesystem("s3")
        system.mkdir("bucket")
        system.put(f"{folder / 'in'}/", "bucket/in/", recursive=True)
        for _ in range(2):
            archive_here(job(folder, tmp_path / "tags", "s3://bucket/in"))
        with pytest.raises(InputError, match=r"s3://none/in: cannot be listed: The specified"):
            find_clips(["s3://none/in"])
    finally:
        server.stop()
    assert rows(tmp_path / "tags", "s3://bucket/in") == here
    assert len(ArchiveFolder.load(tmp_path / "tags").clips()) == 3
    assert all(b"hunter2" not in path.read_bytes() for path in (tmp_path / "tags").glob("*/*"))


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("memory://bucket/in", ["a.mp4", "broken.mp4", "yard/b.mp4"]),
        ("memory://bucket/in/", ["a.mp4", "broken.mp4", "yard/b.mp4"]),
        ("memory://bucket/in/*/*.mp4", ["yard/b.mp4"]),
        ("memory://bucket/*/y*", ["yard/b.mp4"]),
        ("memory://bucket/in/letter.txt", ["letter.txt"]),  # named, so it is tried
    ],
)
def test_folders_patterns_and_files(source: str, expected: list[str]) -> None:
    clips = find_clips([source, source])
    assert [clip.name.removeprefix("memory://bucket/in/") for clip in clips] == expected
    assert all(clip.size and clip.modified_ns > 1e18 for clip in clips)
    assert find_clips([source]) == clips


@pytest.mark.usefixtures("memory")
def test_an_address_that_says_more_than_the_path() -> None:
    clips = remote_module._address(
        "memory://bucket/in?version=3", fsspec.filesystem("memory"), "/bucket/in", "/bucket/in/a"
    )
    assert clips == "memory:///bucket/in/a"


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"LastModified": datetime(2026, 11, 28, tzinfo=timezone.utc)}, 1795824000 * 10**9),
        ({"updated": "2026-11-28T00:00:00.000Z", "created": 7}, 1795824000 * 10**9),
        ({"modify": "20261128153000"}, 20261128153000),
        ({"mtime": 1.5}, 1_500_000_000),
        ({"mtime": None}, 0),
    ],
    ids=str,
)
def test_times_of_change(info: dict[str, Any], expected: int) -> None:
    assert remote_module._time_ns(info) == expected


@pytest.mark.parametrize(
    ("source", "kind", "text"),
    [
        ("memory://bucket/none", InputError, "memory://bucket/none: cannot be listed: "),
        ("memory://bucket/in/*.avi", InputError, "no pictures or videos there"),
        ("zip://a.mp4::s3://b/c.zip", InputError, "chained addresses .* are not read"),
        ("nope://a/b", InputError, "nope://a/b: .*nope; fsspec has no such file system"),
        ("adl://a/b", MissingDependencyError, "adl://a/b: .*adlfs.*: pip install it"),
    ],
)
@pytest.mark.usefixtures("memory")
def test_addresses_that_cannot_be_used(source: str, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        find_clips([source])
    assert "\n" not in str(caught.value)


def test_a_worker_removes_its_copies(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process, which copies from `local://`; it is killed while it waits for more."""
    waiting = (
        "import time; from taidpt.runtime.archive import clip_tagger as c; real = c.fetch\n"
        "def fetch(url, path):\n"
        "    yield from real(url, path)\n"
        "    if 'yard' in url: yield; time.sleep(600)\n"
        "c.fetch = fetch\n"
    )
    monkeypatch.setattr(worker_module, "_START", waiting + worker_module._START)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = f"local://{folder / 'in'}"
    whole, broken, killed = find_clips([source])
    with ClipWorker(job(folder, "", source)) as worker:
        assert list(worker.work(whole))[-1].frames == 12
        (end,) = worker.work(broken)
        assert end.error.startswith(f"{broken.name}: not a video")
        messages = worker.work(killed)
        assert len(next(messages)) == 0  # a sign of life
        assert len(list(tmp_path.glob("taidpt-archive-*/*/clip.mp4"))) == 1
        assert worker._process is not None
        worker._process.kill()
        assert "ended the worker with SIGKILL" in list(messages)[-1].error
    assert not list(tmp_path.iterdir())


def test_a_clip_that_is_gone_is_an_error_and_a_lost_connection_ends_the_run(
    folder: Path, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "tags"
    real = remote_module._open

    class Losing:
        """Loses a file, then the connection."""

        def open(self, path: str, mode: str) -> Any:
            if path.endswith("a.mp4"):
                raise FileNotFoundError(path)
            if path.endswith("b.mp4") and lost:
                raise RuntimeError("timed out at\nftp://joe:hunter2@host")
            return memory.open(path, mode)

        def __getattr__(self, name: str) -> Any:
            return getattr(memory, name)

    monkeypatch.setattr(remote_module, "_open", lambda url: (Losing(), real(url)[1]))
    for lost in (True, False):
        task = job(folder, output, "memory://bucket/in")
        if lost:
            with pytest.raises(BackendError, match=r"b\.mp4: cannot be copied to") as caught:
                archive_here(task)
            assert "hunter2" not in str(caught.value)
            assert "timed out at ftp://***@host; finished shards are kept" in str(caught.value)
        else:
            archive_here(task)
    errors = ArchiveFolder.load(output).read("errors").to_pylist()
    assert [Path(row["clip"]).name for row in errors] == ["a.mp4", "broken.mp4"]
    assert "memory://bucket/in/a.mp4: cannot be read: " in errors[0]["reason"]
    assert not list(Path(tempfile.gettempdir()).glob("*/clip.mp4"))


def test_credentials_are_hidden(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In names, which tables hold, and in errors."""
    url = "sftp://joe:hunter2@host/bucket/in"
    system = SimpleNamespace(
        info=memory.info, find=memory.find, exists=memory.exists, glob=memory.glob
    )
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda _: (system, "/bucket/in"))
    clips = find_clips([url])
    assert clips[0].name == "sftp://***@host/bucket/in/a.mp4"
    assert clips[0].path == "sftp://joe:hunter2@host/bucket/in/a.mp4"
    system.info = lambda _: (_ for _ in ()).throw(OSError(f"no login at {url}"))
    with pytest.raises(InputError, match=r"^sftp://\*\*\*@host/bucket/in: cannot be listed: "):
        find_clips([url])


def test_lists(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "in")
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"# two cameras\r\na.mp4\r\n\n  yard  \n" + os.fsencode(folder / "in/a.mp4"))
    names = [Path(clip.name).name for clip in find_clips([f"@{listed}"])]
    assert names == ["a.mp4", "b.mp4"]
    stream = SimpleNamespace(buffer=io.BytesIO(b"broken.mp4\n"))
    monkeypatch.setattr("sys.stdin", stream)
    assert [Path(clip.name).name for clip in find_clips(["@-"])] == ["broken.mp4"]
    for content, text in ((b"\n# nothing\n", "the list names no source"), (b"none.mp4", "no such")):
        listed.write_bytes(content)
        with pytest.raises(InputError, match=text):
            find_clips([f"@{listed}"])
    with pytest.raises(InputError, match=r"none\.txt: the list cannot be read: No such file"):
        find_clips(["@none.txt"])
    colour_video(tmp_path / "@odd.mp4", 3)
    monkeypatch.chdir(tmp_path)
    assert [Path(clip.name).name for clip in find_clips(["@odd.mp4"])] == ["@odd.mp4"]


def test_an_archive_is_written_on_this_machine(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(folder / "lively.taidpt"), str(folder / "in"), "-o", "s3://k:secret@b/tags"]
    done = CliRunner().invoke(cli, ["archive", *arguments])
    text = "s3://***@b/tags: an archive is written into a folder of this machine; give one with -o"
    assert str(done.exception).startswith(text)
    assert not list(tmp_path.iterdir())

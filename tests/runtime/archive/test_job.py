"""`taidpt archive`: what its tables hold, kills, reruns, clips that break, and bad input."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from taidpt.runtime.archive import worker as worker_module
from taidpt.runtime.archive.features import decode_features
from taidpt.runtime.archive.folder import ArchiveFolder
from taidpt.runtime.archive.inputs import find_clips, make_shards
from taidpt.runtime.archive.job import run_archive
from taidpt.runtime.archive.request import ArchiveJob, difference, identity_of, layout_of
from taidpt.runtime.archive.schema import TABLES, FeatureLayout, table_schemas
from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError, TaidptError
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.tag.request import Outputs, TagJob
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.archive.in_process import archive_here
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_video

# Kills of the loop; `TAIDPT_KILLS=50` is the long form.
KILLS = int(os.environ.get("TAIDPT_KILLS", "3"))


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose threshold some tags cross in the colour video."""
    folder = tmp_path_factory.mktemp("lively")
    return tiny_bundle(folder / "lively.taidpt", TinySpec(thresholds=(1.0,), bank_as="input"))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos of two cameras, a picture, and a file that is no video."""
    folder = tmp_path_factory.mktemp("recordings")
    for index in range(5):
        camera = folder / ("gate" if index < 3 else "yard")
        camera.mkdir(exist_ok=True)
        colour_video(camera / f"{index}.mp4", 40 + index)
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(folder / "yard" / "picture.png")
    (folder / "gate" / "broken.mp4").write_bytes(b"\0\1 not a video")
    return folder


def job(bundle: Path, sources: object, output: Path, **options: Any) -> ArchiveJob:
    tag = TagJob(
        str(bundle),
        tuple(map(str, sources if isinstance(sources, list) else [sources])),
        Outputs(top=options.pop("top", 3)),
        BackendOptions("cpu"),
        SourceOptions(decoder="software"),
        bank=options.pop("bank", None),
    )
    options.setdefault("workers", 1)
    options.setdefault("shard_clips", 2)
    return ArchiveJob(tag, str(output), **options)


def tables(path: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of each table, in one order."""
    found = {}
    for table in TABLES:
        rows = ArchiveFolder.load(path).read(table).to_pylist()
        found[table] = sorted(rows, key=lambda row: [str(row[key]) for key in list(row)[:3]])
    return found


@pytest.fixture(scope="module")
def whole(lively: Path, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of an unbroken run, with patch features."""
    output = tmp_path_factory.mktemp("whole") / "tags"
    archive_here(job(lively, recordings, output, features="patches"))
    return output


def test_rows_are_those_of_the_tagger(lively: Path, recordings: Path, whole: Path) -> None:
    found = tables(whole)
    clip = str(recordings / "gate" / "1.mp4")
    frames = sorted(
        (row for row in found["frames"] if row["clip"] == clip), key=lambda row: int(row["index"])
    )
    with Tagger.load(lively, device="cpu") as tagger:
        with tagger.stream(clip, decoder="software") as stream:
            moments = list(stream)
            intervals = stream.timeline()
        assert len(frames) == len(moments) == 41
        for row, moment in zip(frames, moments, strict=True):
            assert (row["index"], row["time_s"]) == (moment.frame.index, moment.time)
            best = moment.result.top(3)
            assert [entry["tag"] for entry in row["top"]] == [tag.name for tag in best]
            assert [entry["on"] for entry in row["top"]] == [tag.on for tag in best]
            scores = [entry["score"] for entry in row["top"]]
            np.testing.assert_allclose(scores, [tag.score for tag in best], rtol=1e-6)
        events = [row for row in found["events"] if row["clip"] == clip]
        assert intervals
        assert sorted((r["tag"], r["start_s"], r["end_s"], r["open"]) for r in events) == sorted(
            (i.tag, i.start_s, i.end_s, i.open) for i in intervals
        )
        picture = str(recordings / "yard" / "picture.png")
        on = {tag.name for tag in tagger(picture).on_tags}
    rows = [row for row in found["events"] if row["clip"] == picture]
    assert on == {row["tag"] for row in rows}
    assert all(row["start_s"] is None and row["end_s"] is None for row in rows)
    by_clip = {row["clip"]: row for row in found["manifest"]}
    assert len(by_clip) == 7
    assert by_clip[clip]["frames"] == 41
    assert by_clip[clip]["bytes"] == Path(clip).stat().st_size
    assert [row["clip"] for row in found["errors"]] == [str(recordings / "gate" / "broken.mp4")]
    assert "not a video" in found["errors"][0]["reason"]


@pytest.mark.parametrize(("kind", "atol"), [("patches", 3e-4), ("patches-int8", 6e-3)])
def test_features_come_back(kind: str, atol: float) -> None:
    """Of tiles too; half precision keeps 11 bits of a component, int8 a 254th of the largest."""
    from taidpt.runtime.archive.features import encode_features, feature_columns

    layout = FeatureLayout(kind, (2, 24), 6)
    generator = np.random.default_rng(3)
    whole, patches = (generator.normal(size=(5, n, 24)).astype(np.float32) for n in (2, 6))
    whole, patches = (
        rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in (whole, patches)
    )
    stored = [encode_features(*frame, layout) for frame in zip(whole, patches, strict=True)]
    columns = feature_columns(stored, layout)
    table = pa.table(columns, schema=pa.schema(layout.fields()))
    for part, first in ((table, 0), (table.slice(2), 2)):
        back = decode_features(part, layout)
        np.testing.assert_allclose(back.whole, whole[first:], atol=3e-4)
        np.testing.assert_allclose(back.patches, patches[first:], atol=atol)
        assert np.abs(back.patches - patches[first:]).max() > 0  # rounded, so not merely kept


def test_schema_is_documented() -> None:
    """Every column stands in docs/archive.md with its type, and no other."""
    from tests.support import REPOSITORY

    text = (REPOSITORY / "docs" / "archive.md").read_text("utf-8")
    for table, schema in table_schemas(FeatureLayout("patches", (8,), 4)).items():
        for field in schema:
            assert f"| `{table}` | `{field.name}` |" in text, (table, field.name)
    assert text.count("| `frames` | `") == 6


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "taidpt", "archive", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_kills_lose_only_the_shards_in_hand(
    lively: Path, recordings: Path, whole: Path, tmp_path: Path
) -> None:
    """Killed after another part each time, it ends with the rows of the unbroken run."""
    output = tmp_path / "tags"
    arguments = [str(lively), str(recordings), "-o", str(output), "--features", "patches"]
    arguments += ["--shard-clips", "1", "--top", "3", "--device", "cpu", "--decoder", "software"]
    manifest, kept = output / "manifest", dict[str, int]()
    random = np.random.default_rng(5)
    for kill in range(KILLS):
        process = start([*arguments, "--workers", str(1 + kill % 2)])
        if kill % 3 < 2:  # when a part is there; else at any moment of the start
            while len(list(manifest.glob("*.parquet"))) <= len(kept) and process.poll() is None:
                time.sleep(0.001)
            time.sleep(float(random.uniform(0, 0.02)))
        else:
            time.sleep(float(random.uniform(0, 1.5)))
        process.kill()
        process.communicate()
        now = {path.name: path.stat().st_mtime_ns for path in manifest.glob("*.parquet")}
        assert kept.items() <= now.items(), "a finished shard was written again"
        kept = now
        if len(kept) == len(tables(whole)["manifest"]):  # all whole: begin again
            assert tables(output) == tables(whole)
            shutil.rmtree(output)
            kept = {}
    archive_here(job(lively, recordings, output, features="patches", shard_clips=1))
    assert tables(output) == tables(whole)
    now = {path.name: path.stat().st_mtime_ns for path in manifest.glob("*.parquet")}
    assert kept.items() <= now.items()
    assert not [path for table in TABLES for path in (output / table).glob(".*")]


def test_workers_end_with_a_killed_run(lively: Path, tmp_path: Path) -> None:
    """Also one whose decoder hangs."""
    process = start([str(lively), str(hanging_clip(tmp_path)), "-o", str(tmp_path / "tags")])
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = []
    while not workers and process.poll() is None:
        task = Path(f"/proc/{process.pid}/task")
        with contextlib.suppress(OSError):
            workers = [pid for path in task.glob("*/children") for pid in path.read_text().split()]
        time.sleep(0.01)
    assert workers, (children, process.communicate())
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker outlives its run"
        time.sleep(0.02)


def hanging_clip(folder: Path) -> Path:
    """A playlist whose only part is a pipe that nobody writes to: FFmpeg waits in its `open`."""
    os.mkfifo(folder / "part.ts")
    playlist = folder / "hangs.m3u8"
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:9", "#EXTINF:9,", "part.ts", "#EXT-X-ENDLIST", ""]
    playlist.write_text("\n".join(lines))
    return playlist


def test_clips_that_hang_or_crash_the_decoder_are_errors(
    lively: Path, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing, good = tmp_path / "a-crash.mp4", recordings / "gate" / "0.mp4"
    shutil.copy(good, crashing)
    crash = (
        "import os; from taidpt.runtime.archive import clip_tagger as c; real = c.open_source\n"
        "def open_source(path, options):\n"
        "    if 'a-crash' in path: os.kill(os.getpid(), 11)\n"
        "    return real(path, options)\n"
        "c.open_source = open_source\n"
    )
    monkeypatch.setattr(worker_module, "_START", crash + worker_module._START)
    sources = [crashing, hanging_clip(tmp_path), good]
    run_archive(job(lively, sources, tmp_path / "tags", deadline_s=5.0, shard_clips=9))
    found = tables(tmp_path / "tags")
    reasons = {Path(row["clip"]).name: row["reason"] for row in found["errors"]}
    assert reasons["a-crash.mp4"].endswith("a-crash.mp4: it ended the worker with SIGSEGV")
    assert reasons["hangs.m3u8"].endswith("no frame within 5 s; the decoder hangs")
    assert {row["clip"] for row in found["frames"]} == {str(good)}
    monkeypatch.undo()
    retry = job(lively, sources[::2], tmp_path / "tags", deadline_s=5.0, shard_clips=9)
    run_archive(retry)
    assert tables(tmp_path / "tags") == found
    run_archive(ArchiveJob(**{**vars(retry), "retry_errors": True}))
    found = tables(tmp_path / "tags")
    assert {row["clip"] for row in found["frames"]} == {str(good), str(crashing)}
    assert [Path(row["clip"]).name for row in found["errors"]] == ["hangs.m3u8"]


def test_a_rerun_adds_new_clips_and_replaces_changed_ones(
    lively: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "in", tmp_path / "tags"
    folder.mkdir()
    for index in range(3):
        colour_video(folder / f"{index}.mp4", 10)
    archive_here(job(lively, folder, output, shard_clips=9))
    before = set((output / "frames").iterdir())
    colour_video(folder / "1.mp4", 14)  # a recording that has grown
    colour_video(folder / "new.mp4", 12)
    (folder / "0.mp4").unlink()  # its rows stay
    archive_here(job(lively, folder, output, shard_clips=9))
    assert f"{output}: 2 clips, 26 frames, 1 were there" in capsys.readouterr().out
    counts = {Path(row["clip"]).stem: row["frames"] for row in tables(output)["manifest"]}
    assert counts == {"0": 10, "1": 14, "2": 10, "new": 12}
    assert len(tables(output)["frames"]) == sum(counts.values())
    assert before < set((output / "frames").iterdir())


def test_names_of_any_bytes(lively: Path, recordings: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(recordings / "gate" / "0.mp4", os.fsencode(folder) + b"/caf\xe9 'x'\n.mp4")
    for _ in range(2):
        archive_here(job(lively, folder, tmp_path / "tags"))
    (row,) = tables(tmp_path / "tags")["manifest"]
    assert (row["clip"], row["frames"]) == (f"{folder}/caf\\xe9 'x'\n.mp4", 40)


def test_a_full_disk_leaves_whole_shards_alone(
    lively: Path, recordings: Path, tmp_path: Path
) -> None:
    """The limit of a file's size stands in for it."""
    output = tmp_path / "tags"
    archive_here(job(lively, recordings / "gate" / "0.mp4", output, features="patches"))
    before = tables(output)
    with _largest_file(4 << 10), pytest.raises(InputError) as caught:
        archive_here(job(lively, recordings / "gate", output, features="patches", shard_clips=4))
    assert str(caught.value).startswith(f"{output}")
    assert "cannot be written: File too large; finished shards are kept: run" in str(caught.value)
    assert tables(output) == before


@contextlib.contextmanager
def _largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_options_of_one_side_alone_are_a_difference() -> None:
    """Rows that `retag` made are not mixed with tagged ones."""
    tagged = {"bundle": None, "bank": None, "options": {"top": 3}}
    scored = {**tagged, "options": {"top": 3, "scores_of": "global"}}
    assert difference(tagged, tagged) is None
    assert difference(scored, tagged) == "with scores_of global, and now it is left out"
    assert difference(tagged, scored) == "with scores_of left out, and now it is global"


def test_two_runs_into_one_folder(lively: Path, recordings: Path, tmp_path: Path) -> None:
    manifest = Tagger.load(lively, device="cpu").bundle.manifest
    of_job = identity_of(job(lively, recordings, tmp_path / "tags"), Bundle.load(lively))
    identity = {**of_job, "bundle": None}
    text = rf"process {os.getpid()} on .* \(since 20.*\) writes"
    with (
        ArchiveFolder.writing(tmp_path / "tags", identity, manifest),
        pytest.raises(InputError, match=text),
    ):
        run_archive(job(lively, recordings, tmp_path / "tags"))
    with pytest.raises(InputError, match=r"with no bundle, and now it is lively\.taidpt"):
        run_archive(job(lively, recordings, tmp_path / "tags"))


def test_one_archive_holds_one_kind_of_rows(lively: Path, whole: Path, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other.taidpt", TinySpec(seed=4, bank_as="input"))
    bank = tmp_path / "new.bank"
    TinySpec(seed=9).bank().save(bank)
    source = colour_video(tmp_path / "new.mp4", 5)
    before = tables(whole)
    for changed, options, text in (
        (other, {}, r"tagged with lively.taidpt \(sha256 .*, and now it is other.taidpt"),
        (lively, {"bank": str(bank)}, "with the bundle's own bank, and now it is new.bank"),
        (lively, {"top": 5}, "tagged with top 3, and now it is 5"),
        (lively, {"features": "none"}, "tagged with features patches, and now it is none"),
    ):
        asked = {"features": "patches", **options}
        with pytest.raises(InputError, match=text):
            run_archive(job(changed, source, whole, **asked))
    assert tables(whole) == before


@pytest.mark.parametrize(
    ("sources", "text"),
    [
        (["empty"], "empty: no pictures or videos in this folder"),
        (["none.mp4"], "none.mp4: no such file or folder"),
        (["x*.mp4"], r"x\*.mp4: no file matches this pattern"),
        (["rtsp://host/x"], "rtsp://host/x: an archive is made of files, and this is a network"),
        (["broken.mp4"], "none of 1 clips could be read; the first: .*broken.mp4: not a video"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_sources_without_a_clip(
    sources: list[str], text: str, lively: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("broken.mp4").write_bytes(b"\0\1 nothing")
    with pytest.raises(InputError, match=text):
        run_archive(job(lively, sources, Path("tags")))


def test_folders_and_bundles_that_cannot_be_used(
    lively: Path, recordings: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match=r"holds other files \(letter.txt\), and no archive"):
        run_archive(job(lively, recordings, tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    few = tiny_bundle(tmp_path / "few.taidpt", TinySpec(top_k=2))
    with pytest.raises(InputError, match=r"was exported with --top-k 2, and an archive needs"):
        run_archive(job(few, recordings, tmp_path / "tags"))
    with pytest.raises(TaidptError, match=r"none\.taidpt: no such bundle"):
        run_archive(job(tmp_path / "none.taidpt", recordings, tmp_path / "tags"))
    assert not (tmp_path / "tags").exists()
    options = {"bank": str(lively / "manifest.json")}
    with pytest.raises(TaidptError, match=r"manifest\.json"):  # the worker's error, as one line
        run_archive(job(lively, recordings, tmp_path / "tags", **options))
    with pytest.raises(InputError, match="not an archive"):
        ArchiveFolder.load(tmp_path)


def test_shards_have_stable_names(recordings: Path, lively: Path) -> None:
    clips = find_clips([str(recordings), str(recordings / "gate")])
    assert len(clips) == 7  # each once
    names = [shard.name for shard in make_shards(clips, {"bundle": 1}, 3)]
    assert [shard.name for shard in make_shards(clips, {"bundle": 1}, 3)] == names
    assert len(names) == 3
    assert not set(names) & {shard.name for shard in make_shards(clips, {"bundle": 2}, 3)}
    manifest = Tagger.load(lively, device="cpu").bundle.manifest
    assert layout_of("global", manifest) == FeatureLayout("global", (12,), 16)


def test_an_interrupted_run_ends_its_workers(lively: Path, tmp_path: Path) -> None:
    """Ctrl-C while a decoder hangs: exit code 130, soon, and no rows of the clip."""
    output = tmp_path / "tags"
    process = start([str(lively), str(hanging_clip(tmp_path)), "-o", str(output)])
    while not list((output / "frames").glob(".*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, b"interrupted\n")
    assert tables(output)["manifest"] == []

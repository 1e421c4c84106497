"""`taidpt tag` as users run it: processes, pipes, signals, exit codes."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import Frame, Source
from taidpt.runtime.sources.open import open_source
from taidpt.runtime.stream.stream import StreamSettings
from taidpt.runtime.tag import job as job_module
from taidpt.runtime.tag.job import run_tag
from taidpt.runtime.tag.request import Outputs, TagJob
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import NAMES, TinySpec, tiny_bundle
from tests.runtime.videos import colour_video

BASE = [sys.executable, "-m", "taidpt", "tag"]


def tag(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*BASE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose threshold some tags cross in the colour video."""
    folder = tmp_path_factory.mktemp("lively")
    return tiny_bundle(folder / "lively.taidpt", TinySpec(thresholds=(1.0,)))


def test_the_device_is_one_short_line_once_the_inputs_exist(
    lively: Path, video_path: Path, tmp_path: Path
) -> None:
    """Why `auto` passes over other devices is said with --verbose alone."""
    quiet, verbose = tag(lively, video_path), tag(lively, video_path, "--verbose")
    first = "view crop: the middle of each frame, 57% of 16:9"  # of 28 x 16 pixels, 16 columns
    assert quiet.stderr.splitlines()[0] == first
    about_devices = [line for line in quiet.stderr.splitlines() if "ONNX Runtime" in line]
    assert len(about_devices) == 1
    assert re.fullmatch(r"on (cpu|cuda) \(ONNX Runtime \d+\.\d+\)", about_devices[0])
    assert "not tensorrt" not in quiet.stderr
    assert "device auto: not tensorrt: the bundle has no such engine\n" in verbose.stderr
    missing = tag(lively, tmp_path / "none.mp4")
    assert missing.stderr == f"error: {tmp_path}/none.mp4: no such file or folder\n"


def test_a_video_becomes_json_lines(lively: Path, video_path: Path, tmp_path: Path) -> None:
    out, events = tmp_path / "tags.jsonl", tmp_path / "events.jsonl"
    done = tag(lively, video_path, "--jsonl", out, "--events", events, "--batch", 8)
    assert (done.returncode, done.stdout) == (0, "")
    assert "frames: 100" in done.stderr
    records = lines(out)
    assert len(records) == 100
    keys = {"schema", "source", "index", "time_s", "on", "still", "tags"}
    assert all(set(record) == keys for record in records)
    tag_keys = {
        "name",
        "score",
        "on",
        "probability",
        "threshold_source",
        "uncertain",
        "upper_bound",
    }
    assert all(set(entry) == tag_keys for record in records for entry in record["tags"])  # type: ignore[attr-defined]
    assert {record["schema"] for record in records} == {"taidpt-frame/1"}
    with Tagger.load(lively, device="cpu") as tagger:
        for frame, record in list(zip(open_source(video_path), records, strict=True))[::20]:
            found = {entry["name"]: entry["score"] for entry in record["tags"]}  # type: ignore[attr-defined]
            expected = tagger(frame.image).scores
            np.testing.assert_allclose([found[name] for name in NAMES], expected, atol=1e-5)
            assert record["time_s"] == frame.time_s
    changes = lines(events)
    assert {change["schema"] for change in changes} == {"taidpt-event/1"}
    assert {change["kind"] for change in changes} == {"on", "off"}
    assert [change["number"] for change in changes] == list(range(1, len(changes) + 1))
    one = tag(lively, video_path, "--events", tmp_path / "one.jsonl")
    assert one.returncode == 0
    assert [(c["tag"], c["kind"], c["time_s"]) for c in lines(tmp_path / "one.jsonl")] == [
        (c["tag"], c["kind"], c["time_s"]) for c in changes
    ]


def test_a_person_reads_a_timeline(lively: Path, video_path: Path) -> None:
    done = tag(lively, video_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"{video_path}, 0:04.0"
    body = done.stdout.splitlines()[1:]
    assert body
    assert all("█" in line and "–" in line for line in body)
    nothing = tag(lively, video_path, "--threshold", 99)
    assert "no tag reached its threshold; the best scores were" in nothing.stdout


def test_pictures_and_top(lively: Path, tmp_path: Path) -> None:
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    done = tag(lively, tmp_path, "--jsonl", "-", "--top", 2)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(record["source"]).name for record in records] == ["0.png", "1.png", "2.png"]
    assert all(len(record["tags"]) == 2 and record["time_s"] is None for record in records)
    some = tag(lively, tmp_path / "2.png", tmp_path / "0.png")
    assert [Path(line.split(": ")[0]).name for line in some.stdout.splitlines()] == [
        "2.png",
        "0.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.taidpt", "VIDEO"], "none.taidpt: no such bundle; make one with taidpt-export"),
        (["BUNDLE", "none.mp4"], "none.mp4: no such file or folder"),
        (["BUNDLE", "VIDEO", "--jsonl", "no/where.jsonl"], "no/where.jsonl: cannot be written"),
        (["BUNDLE", "VIDEO", "--device", "ort-tensorrt"], "no TensorrtExecutionProvider"),
        (["BUNDLE", "VIDEO", "--device", "tensorrt-rtx"], "RTX"),
        (["BUNDLE", "VIDEO", "--jsonl", "-", "--events", "-"], "--jsonl and --events both go to -"),
        (["BUNDLE", "VIDEO", "--overlay", "x.gif"], "x.gif: an overlay is a video of .mp4 or .mkv"),
        (["BUNDLE", "VIDEO", "VIDEO", "--vtt", "x.vtt"], "--vtt is for one video"),
        (["BUNDLE", "VIDEO", "--overlay", "VIDEO"], "--overlay would overwrite the source"),
        (["BUNDLE", "VIDEO", "--csv", "BUNDLE/manifest.json"], "would write into the bundle"),
        (["BUNDLE", "VIDEO", "--jsonl", "/dev/full"], "/dev/full: cannot be written: No space"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    lively: Path, video_path: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    places = {"BUNDLE": str(lively), "VIDEO": str(video_path)}
    before = video_path.read_bytes()
    words = [places.get(word, word.replace("BUNDLE/", f"{lively}/")) for word in arguments]
    done = tag(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert video_path.read_bytes() == before
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr


def test_usage_errors_are_exit_code_2(lively: Path, video_path: Path) -> None:
    for arguments in ([lively], [lively, video_path, "--batch", 0], [lively, video_path, "--nope"]):
        assert tag(*arguments).returncode == 2


def test_a_truncated_video_keeps_what_was_tagged(lively: Path, tmp_path: Path) -> None:
    whole = colour_video(tmp_path / "whole.mp4", movflags="faststart")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    done = tag(lively, cut, "--jsonl", tmp_path / "out.jsonl", "--batch", 7)
    assert done.returncode == 2
    assert "truncated" in done.stderr.splitlines()[-1]
    with open_source(whole) as source:
        times = [frame.time_s for frame in source]
    records = lines(tmp_path / "out.jsonl")
    assert [record["time_s"] for record in records] == times[: len(records)]
    assert len(records) > 10


def test_a_closed_standard_output_ends_in_silence(lively: Path, video_path: Path) -> None:
    command = f"{' '.join(BASE)} {lively} {video_path} --jsonl - | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    first, status = done.stdout.splitlines()
    assert json.loads(first)["index"] == 0
    assert status == "0"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_leave_whole_lines(
    lively: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    """A long folder of pictures is interrupted in the middle."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "0000.png")
    for index in range(1, 3000):
        os.link(tmp_path / "in" / "0000.png", tmp_path / "in" / f"{index:04d}.png")
    out = tmp_path / "out.jsonl"
    command = [*BASE, str(lively), str(tmp_path / "in"), "--jsonl", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (out.exists() and out.stat().st_size > 2000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    records = lines(out)
    assert 1 < len(records) < 3000
    assert [record["index"] for record in records] == list(range(len(records)))


def test_a_kill_leaves_all_but_the_last_line_valid(lively: Path, tmp_path: Path) -> None:
    fifo_free = tmp_path / "out.jsonl"
    video = colour_video(tmp_path / "long.mp4", 2000)
    command = [*BASE, str(lively), str(video), "--jsonl", str(fifo_free)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (fifo_free.exists() and fifo_free.stat().st_size > 2000):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    whole = fifo_free.read_text("utf-8").split("\n")[:-1]
    assert len(whole) >= 2
    assert [json.loads(line)["index"] for line in whole] == list(range(len(whole)))


def test_several_sources_share_the_outputs(lively: Path, video_path: Path, tmp_path: Path) -> None:
    second = shutil.copy(video_path, tmp_path / "second.mp4")
    done = tag(lively, video_path, second, "--every", 50, "--jsonl", "-")
    assert done.returncode == 0
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(record["source"], record["index"]) for record in records] == [
        (str(path), index) for path in (video_path, second) for index in (0, 50)
    ]


def test_files_share_batches_and_give_what_they_give_alone(lively: Path, tmp_path: Path) -> None:
    paths = [colour_video(tmp_path / f"{name}.mp4", 30 + 10 * at) for at, name in enumerate("abc")]
    names = list(map(str, paths))
    found = {}
    for batch in (1, 2, 8):
        out, events = tmp_path / f"{batch}.jsonl", tmp_path / f"{batch}.events"
        done = tag(lively, *names, "--batch", batch, "--jsonl", out, "--events", events)
        assert done.returncode == 0
        frames = [record["source"] for record in lines(out)]
        if batch == 2:  # two at once, the third when the first has ended, beside the second
            assert frames[:4] == [names[0], names[1]] * 2
            first_end, second_end = (len(frames) - frames[::-1].index(n) for n in names[:2])
            assert first_end <= frames.index(names[2]) < second_end
        parts = {name: [r for r in lines(events) if r["source"] == name] for name in names}
        found[batch] = {
            name: [(r["tag"], r["kind"], r["time_s"]) for r in part] for name, part in parts.items()
        }
        assert [frames.count(name) for name in names] == [30, 40, 50]
    assert found[1] == found[2] == found[8]
    assert any(found[1].values())
    timelines = tag(lively, *names, "--batch", 8).stdout
    assert timelines == tag(lively, *names).stdout


class ScriptedSource(Source):
    """Thirty frames with times; before some of them it does something."""

    name = "scripted"
    threaded = False

    def __init__(self, actions: dict[int, Callable[[], object]]) -> None:
        self.actions = actions

    def frames(self) -> Iterator[Frame]:
        for index in range(30):
            self.actions.get(index, int)()
            pixels = np.full((16, 16, 3), 8 * index, np.uint8)
            yield Frame(pixels, index / 25, index, self.name)


def hang_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.fixture
def without_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: False)


@pytest.mark.usefixtures("without_terminal")
def test_hangup_continues_in_new_files(
    lively: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = {name: tmp_path / f"out.{name}" for name in ("jsonl", "events", "csv")}

    def rotate() -> None:
        for path in outputs.values():
            path.rename(f"{path}.1")
        hang_up()

    monkeypatch.setattr(job_module, "list_sources", lambda *_: [ScriptedSource({10: rotate})])
    named = Outputs(**{name: str(path) for name, path in outputs.items()})
    run_tag(TagJob(str(lively), ("x",), named))
    old, new = (lines(Path(f"{outputs['jsonl']}{suffix}")) for suffix in (".1", ""))
    assert [record["index"] for record in (*old, *new)] == list(range(30))
    assert len(old) == 10
    rows = outputs["csv"].read_text("utf-8").splitlines()
    assert rows[0].startswith("source,")
    assert len(rows) == 21


@pytest.mark.usefixtures("without_terminal")
@pytest.mark.parametrize("output", ["vtt", "overlay"])
def test_hangup_ends_a_run_whose_file_cannot_be_continued(
    lively: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    path = tmp_path / f"out.{'mp4' if output == 'overlay' else output}"
    monkeypatch.setattr(job_module, "list_sources", lambda *_: [ScriptedSource({20: hang_up})])
    run_tag(TagJob(str(lively), ("x",), Outputs(**{output: str(path)}), threshold=-99.0))
    if output == "vtt":
        assert " --> " in path.read_text("utf-8")
    else:
        with open_source(path) as source:
            assert 15 < len(list(source)) < 25


def test_hangup_of_a_terminal_ends_the_run(
    lively: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: True)
    monkeypatch.setattr(job_module, "list_sources", lambda *_: [ScriptedSource({20: hang_up})])
    run_tag(TagJob(str(lively), ("x",), Outputs(jsonl=str(tmp_path / "out.jsonl"))))
    assert 15 < len(lines(tmp_path / "out.jsonl")) < 25


def test_a_hangup_while_it_loads_ends_with_the_code_of_sigterm() -> None:
    code = (
        "import os, signal, taidpt.cli\n"
        "taidpt.cli._invoke = lambda *_: os.kill(os.getpid(), signal.SIGHUP)\n"
        "taidpt.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (143, b"terminated\n")


@pytest.fixture(scope="module")
def odd_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video whose name is not UTF-8, has a colon and an escape sequence."""
    folder = tmp_path_factory.mktemp("odd")
    path = folder / os.fsdecode(b"12:30\x1b[2Jcaf\xe9.mp4")
    colour_video(folder / "clip.mp4").rename(path)
    return path


@pytest.mark.parametrize("output", ["jsonl", "events", "csv", "report", "vtt", "srt", "overlay"])
def test_odd_file_names_in_every_output(
    lively: Path, odd_clip: Path, tmp_path: Path, output: str
) -> None:
    suffix = {"overlay": "mp4", "report": "html"}.get(output, output)
    target = tmp_path / f"10:30.{suffix}"
    done = subprocess.run(
        [*BASE, str(lively), str(odd_clip), f"--{output}", str(target)],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stderr
    if output in ("jsonl", "events"):
        source = json.loads(target.read_bytes().splitlines()[0])["source"]
        assert os.fsencode(source) == os.fsencode(odd_clip)
    elif output == "csv":
        with target.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            source = list(csv.reader(stream))[1][0]
        assert os.fsencode(source).endswith(b"caf\xe9.mp4")
        assert "\x1b" not in source
    else:
        assert target.stat().st_size > 0


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_a_timeline_in_plain_characters(
    lively: Path, odd_clip: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        [*BASE, str(lively), str(odd_clip)],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"###" in done.stdout
    assert b"\x1b" not in done.stdout
    assert b"caf\xe9.mp4" in done.stdout
    timeline = done.stdout.split(b"caf\xe9.mp4")[1]
    assert timeline.isascii()


def test_json_lines_on_an_ascii_output_stay_json(lively: Path, odd_clip: Path) -> None:
    done = subprocess.run(
        [*BASE, str(lively), str(odd_clip), "--jsonl", "-"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == 100
    assert os.fsencode(records[0]["source"]) == os.fsencode(odd_clip)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with a good picture, with a bad one, and with both and a macOS resource file."""
    root = tmp_path_factory.mktemp("pictures")
    for name, good, bad in (("good", 1, 0), ("bad", 0, 1), ("worse", 0, 3), ("mixed", 1, 2)):
        (root / name).mkdir()
        if good:
            Image.new("RGB", (40, 30), "red").save(root / name / "a.png")
        for number in range(bad):
            (root / name / f"._{number}.jpg").write_bytes(b"junk")
    return root


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["good"], 0),
        (["mixed"], 0),
        (["bad"], 2),
        (["worse"], 2),
        (["bad", "worse"], 2),
        (["bad", "good"], 0),
        (["good", "worse"], 0),
        (["mixed", "bad"], 0),
        (["good/a.png", "bad/._0.jpg"], 0),
    ],
)
def test_unreadable_pictures_fail_a_run_only_if_nothing_was_tagged(
    lively: Path,
    pictures: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    names: list[str],
    code: int,
    batch: int,
) -> None:
    sources = tuple(str(pictures / name) for name in names)
    settings = StreamSettings(batch=batch)
    out = tmp_path / "out.jsonl"
    caplog.set_level(logging.WARNING)
    with pytest.raises(InputError) if code else contextlib.nullcontext():
        run_tag(TagJob(str(lively), sources, Outputs(jsonl=str(out)), stream=settings))
    assert len(lines(out) if out.exists() else ()) == sum(
        name in ("good", "mixed", "good/a.png") for name in names
    )
    assert ("._0" in caplog.text) == (names not in (["good"], ["bad"]))

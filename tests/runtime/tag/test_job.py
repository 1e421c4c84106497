"""`taidpt tag` as users run it: processes, pipes, signals, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taidpt.runtime.sources.open import open_source
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


def test_a_video_becomes_json_lines(lively: Path, video_path: Path, tmp_path: Path) -> None:
    out, events = tmp_path / "tags.jsonl", tmp_path / "events.jsonl"
    done = tag(lively, video_path, "--jsonl", out, "--events", events, "--batch", 8)
    assert (done.returncode, done.stdout) == (0, "")
    assert "frames: 100" in done.stderr
    records = lines(out)
    assert len(records) == 100
    assert set(records[0]) == {"schema", "source", "index", "time_s", "on", "tags"}
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
        if batch == 2:  # two at once, the third when the first has ended
            assert frames[:4] == [names[0], names[1]] * 2
            assert frames.index(names[2]) == 60
        parts = {name: [r for r in lines(events) if r["source"] == name] for name in names}
        found[batch] = {
            name: [(r["tag"], r["kind"], r["time_s"]) for r in part] for name, part in parts.items()
        }
        assert [frames.count(name) for name in names] == [30, 40, 50]
    assert found[1] == found[2] == found[8]
    assert any(found[1].values())
    timelines = tag(lively, *names, "--batch", 8).stdout
    assert timelines == tag(lively, *names).stdout

"""`taidpt tag` with lists of files and folders: each at its turn, and none ends the others."""

from __future__ import annotations

import json
import logging
import resource
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taidpt.runtime.errors import InputError
from taidpt.runtime.sinks.jsonl import JsonlSink
from taidpt.runtime.stream.stream import StreamSettings
from taidpt.runtime.tag.job import run_tag
from taidpt.runtime.tag.request import Outputs, TagJob
from tests.runtime.videos import colour_video


def job(bundle: Path, sources: list[Path], out: Path, batch: int = 1) -> TagJob:
    return TagJob(
        bundle=str(bundle),
        sources=tuple(map(str, sources)),
        outputs=Outputs(jsonl=str(out)),
        stream=StreamSettings(batch=batch),
    )


def frames_of(out: Path) -> Counter[str]:
    records = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    return Counter(Path(record["source"]).name for record in records)


def status(key: str) -> int:
    """A number of /proc/self/status: VmRSS in kB, or Threads."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


@pytest.mark.parametrize("batch", [1, 4])
def test_many_clips_take_no_more_memory_threads_and_files_than_a_few(
    bundle_path: Path, tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = colour_video(tmp_path / "clip.mp4", 6)
    clips = []
    for number in range(200):
        clips.append(tmp_path / f"{number:03}.mp4")
        clips[-1].symlink_to(clip)
    seen: list[tuple[int, int, int]] = []
    write = JsonlSink.write

    def write_and_look(self: JsonlSink, moment: object) -> None:
        if moment.frame.index == 5:  # type: ignore[attr-defined]  # a Moment
            files = len(list(Path("/proc/self/fd").iterdir()))
            seen.append((status("VmRSS"), status("Threads"), files))
        write(self, moment)  # type: ignore[arg-type]

    monkeypatch.setattr(JsonlSink, "write", write_and_look)
    threads_before = status("Threads")  # earlier tests of this process leave some
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 100), hard))
    try:
        run_tag(job(bundle_path, clips, tmp_path / "out.jsonl", batch))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert frames_of(tmp_path / "out.jsonl") == {path.name: 6 for path in clips}
    memory, threads, files = np.array(seen).T
    assert memory[150:].max() - memory[20:50].max() < 20_000
    # A look may fall on threads of two or three clips, which end and begin in their own time. What
    # stays is seen where there are fewest: one kept by each clip would lift that by 100.
    assert threads[150:].min() <= threads[:50].min() + 1
    assert files[150:].min() <= files[:50].min() + 1
    assert threads.max() < threads_before + 20
    assert files.max() < 60


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_video_that_fails_ends_no_other_and_is_named_at_the_end(
    bundle_path: Path, tmp_path: Path, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.mkv", "d.mkv"):
        colour_video(tmp_path / name, 10)
    noise = np.random.default_rng(0).integers(0, 256, 9000).astype(np.uint8)
    (tmp_path / "b.mkv").write_bytes(noise.tobytes())
    (tmp_path / "c.txt").write_text("a list, and no video\n")
    sources = [tmp_path / name for name in ("a.mkv", "b.mkv", "c.txt", "d.mkv")]
    with pytest.raises(InputError, match=r"b\.mkv: not a video"):
        run_tag(job(bundle_path, sources, tmp_path / "out.jsonl", batch))
    assert frames_of(tmp_path / "out.jsonl") == {"a.mkv": 10, "d.mkv": 10}
    ended = [record.getMessage() for record in caplog.records if "ended: " in record.getMessage()]
    assert len(ended) == 2


def test_a_sink_that_fails_ends_the_run(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [colour_video(tmp_path / name, 5) for name in ("a.mp4", "b.mp4")]
    written = []

    def fail(self: JsonlSink, moment: object) -> None:
        written.append(moment)
        raise InputError("out.jsonl: no space left")

    monkeypatch.setattr(JsonlSink, "write", fail)
    with pytest.raises(InputError, match="no space left"):
        run_tag(job(bundle_path, clips, tmp_path / "out.jsonl"))
    assert len(written) == 1


@pytest.mark.parametrize("as_list", [True, False])
def test_pictures_that_cannot_be_read_are_warnings_while_others_are_tagged(
    bundle_path: Path, tmp_path: Path, as_list: bool, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 20)).save(folder / name)
    (folder / "._a.png").write_bytes(b"resource fork")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    sources = sorted(folder.iterdir()) if as_list else [folder]
    caplog.set_level(logging.WARNING)
    run_tag(job(bundle_path, sources, tmp_path / "out.jsonl"))
    assert frames_of(tmp_path / "out.jsonl") == {"a.png": 1, "b.png": 1}
    assert caplog.text.count("passed over") == 2
    assert "2 of 4 pictures could not be read" in caplog.text
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"broken")
    with pytest.raises(InputError, match="4 of 4 pictures could not be read"):
        run_tag(job(bundle_path, sources, tmp_path / "out.jsonl"))


def test_subtitles_are_of_one_video_and_not_of_a_folder(bundle_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        colour_video(folder / name, 5)
    with pytest.raises(InputError, match="--vtt is for one video"):
        run_tag(TagJob(str(bundle_path), (str(folder),), Outputs(vtt=str(tmp_path / "out.vtt"))))

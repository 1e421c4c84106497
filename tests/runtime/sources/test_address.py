"""What the text of a source means, decided in one place."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from taidpt.runtime.errors import InputError, TaidptError
from taidpt.runtime.sources import address as address_module
from taidpt.runtime.sources.address import Kind, ffmpeg_url, parse_address
from taidpt.runtime.sources.open import open_source
from tests.runtime.videos import colour_video, write_video


@pytest.mark.parametrize(
    "name",
    [
        "12:30:05.mkv",
        "http:x.mp4",
        "concat:a.ts|b.ts",
        "a%20b?c#d.mp4",
        "-.mp4",
        "file:x.mkv",
        "pipe:0.mp4",
        "blank at end .ts",
        "7",
    ],
)
def test_files_of_any_name_are_read(
    video_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copy(video_path, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for spec in (name, f"./{name}", tmp_path / name, f"FILE://{quote(str(tmp_path / name))}"):
        assert len(list(open_source(spec))) == 100


def test_a_name_that_is_not_utf8_is_read(video_path: Path, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    shutil.copy(video_path, name)
    assert len(list(open_source(name))) == 100
    assert len(list(open_source(f"file://localhost{quote(os.fsencode(name))}"))) == 100


@pytest.mark.parametrize(
    ("text", "kind", "url"),
    [
        ("RTSP://Cam/1", Kind.NETWORK, "rtsp://Cam/1"),
        ("srt://h:9?streamid=x", Kind.NETWORK, "srt://h:9?streamid=x"),
        ("/dev/video3", Kind.CAMERA, "/dev/video3"),
    ],
)
def test_streams_and_cameras(text: str, kind: Kind, url: str) -> None:
    address = parse_address(text)
    assert (address.kind, ffmpeg_url(address)) == (kind, url)


def test_a_link_to_a_camera_is_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/null stands for a camera's device, which this machine may not have."""
    (tmp_path / "by-id").symlink_to("/dev/null")
    with pytest.raises(InputError, match="the file is empty"):
        parse_address(str(tmp_path / "by-id"))
    monkeypatch.setattr(address_module, "_CAMERA", "/dev/nul")
    address = parse_address(str(tmp_path / "by-id"))
    assert (address.kind, address.text) == (Kind.CAMERA, "/dev/null")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", r"^3: no such file or folder; for a camera give its device, /dev/video3$"),
        ("csi://1", r"give 'gst:nvarguscamerasrc sensor-id=1 ! "),
        ("v4l2:///dev/video0", "give its device, /dev/video0"),
        ("file://server/clip.mp4", "needs an absolute path on this machine"),
        ("file://clip.mp4", "needs an absolute path on this machine"),
        ("file:///no%20such.mp4", "^/no such.mp4: no such file or folder$"),
        ("webrtc://u:pw@h/x", r"^webrtc://\*\*\*@h/x: unknown scheme"),
        ("", "a source has no name"),
    ],
)
def test_what_cannot_be_a_source_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_address(text)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"[a-z]{0,5}:/{0,3}[^\n]{0,20}", fullmatch=True))
def test_any_text_is_an_address_or_one_error_line(text: str) -> None:
    with contextlib.suppress(TaidptError):
        assert parse_address(text).name


def run_tag(bundle: Path, source: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "taidpt", "tag", str(bundle), source, "--jsonl", "-"]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=100)


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".flv"])
def test_a_video_is_read_from_standard_input(
    bundle_path: Path, tmp_path: Path, suffix: str
) -> None:
    data = colour_video(tmp_path / f"clip{suffix}", 20).read_bytes()
    for source in ("-", "/dev/stdin"):
        done = run_tag(bundle_path, source, data)
        assert (done.returncode, done.stdout.count(b"\n")) == (0, 20), done.stderr


def test_an_mp4_with_its_index_last_says_what_a_pipe_needs(
    bundle_path: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 96, 128, 3)).astype(np.uint8)
    done = run_tag(bundle_path, "-", write_video(tmp_path / "a.mp4", list(noise)).read_bytes())
    assert done.returncode == 2
    assert b"a pipe needs Matroska, MPEG-TS, or MP4 with its index first" in done.stderr


def test_a_fifo_is_read_from_its_start(tmp_path: Path) -> None:
    data = colour_video(tmp_path / "clip.ts", 20).read_bytes()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(data,))
    writer.start()
    assert len(list(open_source(fifo))) == 20
    writer.join()


def test_an_overlay_may_have_a_colon_in_its_name(bundle_path: Path, tmp_path: Path) -> None:
    colour_video(tmp_path / "a.mp4", 3)
    command = [sys.executable, "-m", "taidpt", "tag", str(bundle_path), "a.mp4"]
    done = subprocess.run(
        [*command, "--overlay", "10:30.mp4"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(open_source(tmp_path / "10:30.mp4"))) == 3

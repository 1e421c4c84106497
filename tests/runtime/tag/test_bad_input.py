"""Every bad input is one clear line and the right exit code, and what was written stays valid."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from taidpt.runtime.errors import BackendError, InputError
from taidpt.runtime.sources.base import Frame
from taidpt.runtime.sources.open import open_source
from taidpt.runtime.storage.atomic import write_atomically
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_frame, write_video

TAG = f"{sys.executable} -m taidpt tag"


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lively")
    return tiny_bundle(folder / "lively.taidpt", TinySpec(thresholds=(1.0,)))


def shell(line: str, folder: Path) -> tuple[int, str, list[str]]:
    """Exit code, standard output, and the error lines of a bash command."""
    command = ["bash", "-c", f"set -o pipefail; {line}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert "Traceback" not in done.stderr, done.stderr
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    return done.returncode, done.stdout, errors


def silent_container(path: Path) -> Path:
    """A video stream that was announced and never came."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    return path


def test_sources_that_are_none(tmp_path: Path) -> None:
    silent_container(tmp_path / "silent.mkv")
    (tmp_path / "empty.png").touch()
    cases = {
        "": "a source has no name",
        "none.mp4": "no such file or folder",
        "gopher://user:pw@x/1": r"gopher://\*\*\*@x/1: unknown scheme; try rtsp://",
        "rtsp://127.0.0.1:1/x": "cannot be opened: .*Connection refused",
        "http://127.0.0.1:1/x.mp4": "cannot be opened: .*Connection refused",
        "/dev/video77": "cannot be opened: .*No such file",
        "/dev/null": "the file is empty",
        "silent.mkv": "not a video or a picture that can be read",
        "empty.png": "the file is empty",
        str(tmp_path): "pictures could not be read|pictures in this folder|the file is empty|not a",
    }
    for text, message in cases.items():
        found = tmp_path / text if (tmp_path / text).is_file() else text
        with pytest.raises(InputError, match=message) as caught:
            list(open_source(found))
        assert "\n" not in str(caught.value)


@contextmanager
def nobody() -> Iterator[None]:
    """Without root's right to read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_source_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(0o755)  # pytest's own folders are the user's alone
    secret, folder = tmp_path / "secret.mp4", tmp_path / "secrets"
    secret.write_bytes(b"x")
    secret.chmod(0)
    folder.mkdir()
    (folder / "inside.mp4").write_bytes(b"x")
    folder.chmod(0)
    for path in (secret, folder, folder / "inside.mp4"):
        with nobody(), pytest.raises(InputError, match=f"{path.name}: .*Permission denied"):
            open_source(path)


def test_pictures_of_any_size_and_a_bomb(tagger: Tagger, tmp_path: Path) -> None:
    for width, height in ((1, 1), (20_000, 40), (40, 20_000)):
        Image.new("RGB", (width, height), (200, 30, 30)).save(tmp_path / "p.png")
        [frame] = open_source(tmp_path / "p.png")
        assert frame.image.shape == (height, width, 3)
        assert np.isfinite(tagger(frame.image).scores).all()
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    finally:
        Image.MAX_IMAGE_PIXELS = before
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(InputError, match=r"bomb\.png: too many pixels to open safely"):
        list(open_source(tmp_path / "bomb.png"))


def broken_bundle(path: Path) -> Path:
    """A bundle whose graph gives NaN; its hashes are right."""
    made = tiny_bundle(path)
    graph = onnx.load(made / "model.onnx")
    for weight in graph.graph.initializer:
        if weight.name == "scale":
            values = np.full_like(numpy_helper.to_array(weight), np.nan)
            weight.CopyFrom(numpy_helper.from_array(values, "scale"))
    old = (made / "model.onnx").read_bytes()
    new = graph.SerializeToString()
    (made / "model.onnx").write_bytes(new)
    manifest = made / "manifest.json"
    text = manifest.read_text("utf-8")
    text = text.replace(hashlib.sha256(old).hexdigest(), hashlib.sha256(new).hexdigest())
    manifest.write_text(text, "utf-8")
    return made


def test_scores_that_are_not_numbers(tmp_path: Path, video_path: Path) -> None:
    bundle = broken_bundle(tmp_path / "nan.taidpt")
    with Tagger.load(bundle, device="cpu") as tagger, pytest.raises(BackendError, match="finite"):
        tagger(np.zeros((20, 20, 3), np.uint8))
    code, _, errors = shell(f"{TAG} {bundle} {video_path} --jsonl out.jsonl", tmp_path)
    assert code == 2
    assert len(errors) == 1
    assert "returned scores that are not finite; export with a higher precision" in errors[0]
    assert (tmp_path / "out.jsonl").read_bytes() == b""


@pytest.mark.parametrize("option", ["jsonl", "events", "csv", "report", "overlay"])
def test_a_full_disk_leaves_whole_lines(lively: Path, tmp_path: Path, option: str) -> None:
    """A limit on the size of files stands for the disk; 1 KiB blocks."""
    noise = np.random.default_rng(0)
    plain = [colour_frame(25 * index) for index in range(80)]  # another colour each time
    share = 256 if option == "overlay" else 64  # enough noise to fill the disk
    pictures = [
        noise.integers(0, share, picture.shape, np.uint8) // 2 + picture // 2 for picture in plain
    ]
    video = write_video(tmp_path / "noise.mp4", pictures)
    name = {"report": "out.html", "overlay": "out.mkv"}.get(option, "out.txt")
    blocks = {"overlay": 60, "report": 12}.get(option, 2)  # an empty report has 8 KiB
    quick = "--smoothing 0 --min-on 0 --min-off 0"
    line = f"ulimit -f {blocks}; {TAG} {lively} {video} {quick} --{option} {name}"
    code, _, errors = shell(line, tmp_path)
    text = (tmp_path / name).read_bytes()
    assert code == 2
    assert len(errors) == 1
    assert re.search("cannot be written|could not be finished", errors[0])
    if option in ("jsonl", "events"):
        assert all(json.loads(row) for row in text.decode().splitlines())
        assert text.endswith(b"\n")
    elif option == "csv":
        rows = list(csv.reader(text.decode().splitlines()))
        assert len({len(row) for row in rows}) == 1
    elif option == "report":
        assert text.endswith(b"</html>\n")
    else:
        frames: list[Frame] = []
        with suppress(InputError):  # it says that the end is missing
            frames.extend(open_source(tmp_path / name))
        assert len(frames) > 3


@pytest.mark.parametrize("option", ["--jsonl -", ""])
def test_standard_output_that_is_closed_full_or_cut_off(
    lively: Path, video_path: Path, tmp_path: Path, option: str
) -> None:
    line = f"{TAG} {lively} {video_path} {option}"
    assert shell(f"{line} >&-", tmp_path)[0] == 0
    assert shell(f"{line} | head -c 1", tmp_path)[0] == 0
    code, _, errors = shell(f"{line} > /dev/full", tmp_path)
    assert code == 2
    assert errors == ["error: standard output: cannot be written: No space left on device"]


def test_a_closed_standard_error_costs_no_result(
    lively: Path, video_path: Path, tmp_path: Path
) -> None:
    code, out, _ = shell(f"{TAG} {lively} {video_path} --jsonl - 2>&-", tmp_path)
    assert code == 0
    assert len(out.splitlines()) == 100


def test_a_device_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe, real, link = tmp_path / "pipe", tmp_path / "real", tmp_path / "link"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    write_atomically(pipe, b"page")
    assert reader.communicate(timeout=20)[0] == b"page"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"

"""Every example of the runtime runs as its first lines say."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from taidpt.runtime import Tagger, open_source
from taidpt.runtime.commands import serve, tag
from tests.runtime.sources.test_live_stream import free_port, server
from tests.runtime.stub_driver import StubMachine, add_stub_engine
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_video
from tests.support import REPOSITORY, require


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lively")
    return tiny_bundle(folder / "lively.taidpt", TinySpec(thresholds=(1.0,)))


def example(name: str, *arguments: object) -> str:
    command = [sys.executable, str(REPOSITORY / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_until_bound(port: int) -> None:
    """Whether a port is taken shows without connecting, which would be the server's one client."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return
        time.sleep(0.1)
    raise AssertionError("the test's server never listened")


EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))
# Packages that an example shows, and that need not be here.
OTHERS = {"cv2": "opencv", "supervision": "supervision"}


def exit_message(path: Path, *arguments: str) -> str:
    """What an example says as it ends."""
    before, sys.argv = sys.argv, [str(path), *arguments]
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
    except ModuleNotFoundError as error:
        require(OTHERS[str(error.name).partition(".")[0]], False, f"pip install {error.name}")
    finally:
        sys.argv = before
    return str(ended.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_without_arguments_an_example_says_how_it_is_called(path: Path) -> None:
    assert f"python examples/{path.name} street.taidpt" in exit_message(path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_files_that_are_not_there_are_named(path: Path, lively: Path, tmp_path: Path) -> None:
    usage = exit_message(path)
    line = next(line for line in usage.splitlines() if f"examples/{path.name} street" in line)
    given = shlex.split(line)[3:]
    words = [word if word.isdigit() else str(tmp_path / word) for word in given]
    if path.stem == "external_decode":
        assert exit_message(path, str(lively), *words) == f"error: {words[0]}: no such file"
        return
    message = exit_message(path, str(tmp_path / "none.taidpt"), *words)
    assert message.startswith("error: ")
    assert "none.taidpt" in message or words[0] in message
    assert "\n" not in message
    message = exit_message(path, str(lively), *words)
    assert message.startswith(f"error: {words[0]}: ")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_imports_public_names_alone(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    ours = [
        node
        for node in nodes
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "taidpt"
    ]
    assert any(node.module == "taidpt" and "Tagger" in _names(node) for node in ours)
    for node in ours:
        assert node.module in ("taidpt", "taidpt.runtime"), node.module
        assert _names(node) <= set(dir(importlib.import_module(str(node.module))))


def _names(node: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in node.names}


def test_with_supervision(lively: Path, video_path: Path, tmp_path: Path) -> None:
    there = importlib.util.find_spec("supervision") is not None
    require("supervision", there, "pip install supervision")
    target = tmp_path / "tagged.mp4"
    output = example("with_supervision.py", lively, video_path, target)
    found = re.fullmatch(r".*tagged\.mp4: tags in (\d+) frames\n", output)
    assert found is not None
    with Tagger.load(lively, device="cpu") as tagger:
        expected = sum(bool(list(moment.result)) for moment in tagger.stream(video_path))
    assert 0 < int(found[1]) == expected < 100
    with open_source(target) as source:
        assert len(list(source)) == 100


def test_the_notebook_runs(shared_encoders: Path) -> None:
    there = importlib.util.find_spec("nbclient") is not None
    require("nbclient", there, "pip install nbclient ipykernel")
    import nbclient
    import nbformat

    notebook = nbformat.read(REPOSITORY / "examples" / "first_tagger.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # kept out of the repository
    share = f"""
import sys, pathlib
sys.path.insert(0, {str(REPOSITORY)!r})
from tests.conftest import encoders_kept_in
kept = encoders_kept_in(pathlib.Path({str(shared_encoders)!r}))
kept.__enter__()
"""
    notebook.cells.insert(0, nbformat.v4.new_code_cell(share))
    nbclient.NotebookClient(notebook, timeout=300).execute()
    shown = [cell.outputs[-1].data["text/plain"] for cell in notebook.cells if cell.get("outputs")]
    assert shown[0].startswith("TunedPrompts(3 tags")
    assert "toy.taidpt" in shown[1]
    assert shown[2].startswith("TagResult(")
    assert len(shown) == 5


def test_tag_video(lively: Path, video_path: Path) -> None:
    output = example("tag_video.py", lively, video_path)
    assert re.search(r"^ +\d\.\d\d s  .+ on$", output, re.MULTILINE)
    assert re.search(r"^.+: \d\.\d to \d\.\d s$", output, re.MULTILINE)


def test_opencv_loop(lively: Path, video_path: Path) -> None:
    there = importlib.util.find_spec("cv2") is not None
    require("opencv", there, "pip install opencv-python-headless")
    lines = example("opencv_loop.py", lively, video_path).splitlines()
    assert len(lines) == 100
    assert any(line.endswith(" on") for line in lines)
    with Tagger.load(lively, device="cpu") as tagger:
        first = next(iter(tagger.stream(video_path))).tags[0]
    assert lines[0].startswith(f"0.00 s  best {first.name} ")


def test_external_decode_on_the_stub_of_a_gpu(
    machine: StubMachine, tmp_path: Path, own_state: None
) -> None:
    """The real example; the driver, TensorRT and the decoder are stubs."""
    bundle = tiny_bundle(tmp_path / "t.taidpt", TinySpec(height=96, width=128))
    add_stub_engine(bundle)
    video = colour_video(tmp_path / "clip.mp4", frames=30)
    code = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    script = REPOSITORY / "examples" / "external_decode.py"
    device, *lines = machine.run(code, [script, bundle, video]).splitlines()
    assert device == "tensorrt (TensorRT 10.3, fp32 engine)"
    assert len(lines) == 30
    assert not [call for call in machine.calls if call.startswith("copy in")]
    assert machine.calls.count("record event in stream 0x1") == 30  # waits for the decoder
    with Tagger.load(bundle, device="cpu") as tagger:
        for index, moment in enumerate(tagger.stream(video)):
            best = ", ".join(f"{tag.name} {tag.score:.2f}" for tag in moment.result.top(3))
            assert lines[index] == f"frame {index}: {best}"


def test_gstreamer_pipeline(lively: Path) -> None:
    there = shutil.which("gst-launch-1.0") is not None
    require("gstreamer", there, "apt install gstreamer1.0-tools gstreamer1.0-plugins-good")
    pipeline = "gst:videotestsrc is-live=true ! video/x-raw,width=64,height=48"
    output = example("watch_camera.py", lively, pipeline, 2)
    assert re.search(r"last frame at \d+\.\d s, \d+ frames dropped", output)


@pytest.mark.parametrize("name", ["taidpt-street", "taidpt-site"])
def test_the_unit_file_is_one_that_systemd_takes(name: str, tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    require("systemd-analyze", tool is not None, "apt install systemd")
    text = (REPOSITORY / "examples" / "service" / f"{name}.service").read_text()
    # what is not on this machine: the program, its user, and the file of secrets
    taidpt = shutil.which("taidpt") or sys.executable
    text = text.replace("/opt/taidpt/bin/taidpt", taidpt).replace("User=taidpt", "User=root")
    unit = tmp_path / f"{name}.service"
    unit.write_text(text)
    done = subprocess.run(
        [str(tool), "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    about_ours = [line for line in done.stderr.splitlines() if "taidpt" in line]
    assert not about_ours, done.stderr
    broken = tmp_path / "taidpt-broken.service"
    broken.write_text(text.replace("Restart=always", "Restart=sometimes"))
    done = subprocess.run(
        [str(tool), "verify", "--man=no", str(broken)], capture_output=True, text=True, check=False
    )
    assert "sometimes" in done.stderr  # the tool does look


@pytest.mark.parametrize(("name", "command"), [("taidpt-street", tag), ("taidpt-site", serve)])
def test_the_unit_files_command_is_one_that_we_take(name: str, command: click.Command) -> None:
    text = (REPOSITORY / "examples" / "service" / f"{name}.service").read_text()
    line = re.search(r"ExecStart=(.*?[^\\])\n", text, re.DOTALL)
    assert line is not None
    words = shlex.split(line[1].replace("\\\n", " "))
    known = {flag for option in command.params for flag in option.opts}
    assert [word for word in words if word.startswith("--") and word not in known] == []
    assert words[:2] == ["/opt/taidpt/bin/taidpt", command.name]


def test_several_cameras(lively: Path, video_path: Path) -> None:
    output = example("several_cameras.py", lively, video_path, video_path)
    assert f"{video_path}: " in output
    assert f"{video_path} (2): " in output


def test_watch_camera(lively: Path) -> None:
    port = free_port()
    with server(port, 60):
        wait_until_bound(port)  # the example fails at once where nothing listens
        output = example("watch_camera.py", lively, f"tcp://127.0.0.1:{port}", 2)
    assert re.search(r"last frame at \d+\.\d s, \d+ frames dropped", output)


def test_where_is_it(lively: Path, tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(frame).save(tmp_path / "in.png")
    target = tmp_path / "where.png"
    output = example("where_is_it.py", lively, tmp_path / "in.png", "dog", target)
    assert output.startswith("dog: score ")
    assert Image.open(target).size == (80, 60)

"""What the engine step is given and cannot use: one line, its exit code, and a bundle as before."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from taidpt.export.parity.reference_pictures import generated_pictures
from taidpt.runtime import Bundle, BundleWriter
from taidpt.runtime.errors import BundleError
from tests.export.precision.test_variant import bundle, template  # noqa: F401  # fixtures

COMMAND = (sys.executable, "-m", "taidpt", "export")


def one_line(code: int, *arguments: object, **options: object) -> str:
    done = subprocess.run(  # type: ignore[call-overload]
        [*COMMAND, *map(str, arguments), "-q"],
        check=False,
        capture_output=True,
        text=True,
        **options,
    )
    assert done.returncode == code, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "Traceback" not in done.stderr
    return str(line)


def state(path: Path) -> tuple[set[str], tuple[str, ...]]:
    """Names of all files beside and in the bundle, and which are damaged."""
    names = {str(p.relative_to(path.parent)) for p in path.parent.rglob("*") if p.is_file()}
    return {n for n in names if not n.endswith(".lock")}, Bundle.load(path).verify_hashes()


def test_a_full_disk(bundle: Path) -> None:  # noqa: F811
    before = state(bundle)

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    line = one_line(2, bundle, "--engine", "fp16", preexec_fn=small_files)
    assert f"{bundle}: cannot be written: File too large; nothing was changed" in line
    assert state(bundle) == before


def test_a_corrupt_graph_behind_right_hashes(bundle: Path) -> None:  # noqa: F811
    with BundleWriter(bundle, base=bundle) as writer:
        writer.write("model.onnx", b"\x08\x0anothing of the kind")
        writer.commit(Bundle.load(bundle).manifest)
    line = one_line(2, bundle, "--engine", "fp16")
    assert "model.onnx: not a readable graph" in line


def test_too_few_readable_pictures(bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    frames = tmp_path / "frames"
    frames.mkdir()
    for index, picture in enumerate(generated_pictures(96)):
        Image.fromarray(picture.pixels).save(frames / f"{index:02d}.png")
    for broken in sorted(frames.iterdir())[7:]:
        broken.write_bytes(broken.read_bytes()[:200])
    line = one_line(2, bundle, "--engine", "int8", "--frames", frames)
    assert "calibration needs at least 8 frames, got 7" in line
    assert "model.int8.onnx" not in Bundle.load(bundle).manifest.files


def test_a_plugin_library_that_is_gone(bundle: Path) -> None:  # noqa: F811
    with BundleWriter(bundle, base=bundle) as writer:
        writer.write("libtaidpt.so", b"\x7fELF")
        writer.commit(Bundle.load(bundle).manifest)
    (bundle / "libtaidpt.so").unlink()
    assert "libtaidpt.so: missing" in one_line(2, bundle, "--engine", "fp16")
    with pytest.raises(BundleError, match=r"libtaidpt\.so: missing"):
        Bundle.load(bundle)


@pytest.mark.parametrize(("ends", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_ended_while_it_writes(ends: int, code: int, bundle: Path) -> None:  # noqa: F811
    """Stopped right after the graph lies in the hidden folder, and run again."""
    program = (
        "import sys, time\n"
        "from taidpt.export.precision import variant\n"
        "save = variant.save_graph\n"
        "def slow(*given):\n"
        "    save(*given)\n"
        "    print('saved', flush=True)\n"
        "    time.sleep(30)\n"
        "variant.save_graph = slow\n"
        "sys.argv = ['taidpt', *sys.argv[1:]]\n"
        "from taidpt.cli import main\n"
        "main()\n"
    )
    arguments = ["export", str(bundle), "--engine", "fp16", "-q"]
    before = Bundle.load(bundle).manifest
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"saved\n"
        time.sleep(0.1)
        process.send_signal(ends)
        assert process.wait(timeout=20) == code
    assert Bundle.load(bundle).manifest == before
    assert Bundle.load(bundle).verify_hashes() == ()
    line = one_line(3, bundle, "--engine", "fp16", "--flavour", "tensorrt")
    assert "not installed here" in line
    names, damaged = state(bundle)
    assert damaged == ()
    assert "street.taidpt/model.fp16.onnx" in names
    assert all(name.startswith("street.taidpt/") for name in names)


def test_options_that_do_not_fit(bundle: Path) -> None:  # noqa: F811
    assert "--frames needs --engine too" in one_line(2, bundle, "--frames", "x", "--jetpack5")
    options = ("--engine", "int8", "--max-map-drop", "-1")
    assert "expected points of mAP, 0 or more" in one_line(2, bundle, *options)
    line = one_line(2, bundle, "--engine", "int8", "--truth", "labels.json")
    assert "where are its pictures? --images DIR" in line
    assert "expected least,usual,largest" in one_line(
        2, bundle, "--engine", "fp16", "--batches", "x"
    )

"""Commands on the base install, and on the install of docs/jetson.md: they work, or say in one line
which extra they need."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taidpt.cli import COMMANDS
from taidpt.export.exporter import ExportOptions, write_bundle
from taidpt.progress import SilentProgress
from taidpt.runtime import Bundle
from taidpt.runtime.optional import _extras, _packages_of
from tests.export.test_exporter import some_prompts
from tests.packaging.base_install import BaseInstall
from tests.runtime.videos import colour_video
from tests.support import REPOSITORY
from tests.taidpt.tiny import VIT, make_clip

pytestmark = pytest.mark.usefixtures("shared_encoders")

DOCUMENTS = ("jetson", "export", "banks")
# How a command line begins in a document; what stands before it there changes the user alone.
COMMAND_LINE = re.compile(
    r"^(?: {4}|sudo -u \w+ env \S+ )?(taidpt(?:-export)? [^#\n]+)", re.MULTILINE
)
INLINE = re.compile(r"`(taidpt(?:-export)? [^`…]*\w\.taidpt[^`…]*)`")
CLIP = "clip.mp4"
# Arguments of commands that need an extra: they stop at the first missing package.
STOPS = {
    "tune": "--model toyworld --pretrained embedded --texts captions.txt --tags tags.txt -o out.st",
    "research eval": "--dataset toyworld --root . --model toyworld",
    "research tune-pictures": "--dataset toyworld --model toyworld -o out.safetensors",
    "research reproduce": "toyworld-taidpt",
    "export": "street.safetensors -o out.taidpt",
    "export deepstream": "street.taidpt -o out",
    "bank make": "street.safetensors -o out.bank",
    "bank compare": "street.taidpt frames/ --bank old.bank",
    "demo": "",
    "serve": "street.taidpt clip.mp4",
    "calibrate": "street.taidpt --frames frames/",
    "archive": "street.taidpt frames/ -o tags/",
    "archive retag": "tags/ --bank new.bank -o tags-v2/",
    "archive write-tags": "tags/",
}
# Command lines of the base install that no document shows for the device.
WORKS = (
    "research eval --scores a.npz",
    "research ensemble a.npz a.npz --rate 0.5",
    "research datasets --root .",
    "export triton street.taidpt -o models",
    "report street.taidpt -o board.json --seconds 0.05",
    "adapt street.taidpt --examples frames --frames clip.mp4 --dry-run",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseInstall:
    return BaseInstall(tmp_path_factory.mktemp("base") / "env")


@pytest.fixture(scope="module")
def jetson(tmp_path_factory: pytest.TempPathFactory) -> BaseInstall:
    """`pip install ./taidpt paho-mqtt onnx onnx-ir`, as docs/jetson.md has it."""
    text = (REPOSITORY / "docs" / "jetson.md").read_text("utf-8")
    packages = re.findall(r"pip install \./taidpt (.*)$", text, re.MULTILINE)
    assert packages == ["paho-mqtt onnx onnx-ir"]
    return BaseInstall(tmp_path_factory.mktemp("jetson") / "env", tuple(packages[0].split()))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the documents' command lines read."""
    folder = tmp_path_factory.mktemp("template")
    clip = make_clip(VIT)
    prompts = some_prompts(clip)
    bundle = write_bundle(
        prompts, clip, folder / "street.taidpt", ExportOptions(bank="input"), SilentProgress()
    )
    write_bundle(prompts, clip, folder / "fixed.taidpt", ExportOptions(), SilentProgress())
    shutil.copytree(folder / "fixed.taidpt", folder / "next.taidpt")
    prompts.save(folder / "street.safetensors")
    bank = Bundle.load(bundle.path).bank
    for name in ("site.bank", "old.bank", "big.bank", "taidpt+linear.bank"):
        bank.save(folder / name)
    names = bank.names
    (folder / "captions.txt").write_text("\n".join(f"a {name} here" for name in names), "utf-8")
    (folder / "tags.txt").write_text("\n".join(names), "utf-8")
    for place in ("frames", "clips", "pictures"):
        (folder / place).mkdir()
        for index in range(12):
            pixels = np.random.default_rng(index).integers(0, 256, (80, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{index}.png")
    labels = {f"{index}.png": [names[index % len(names)]] for index in range(12)}
    (folder / "labels.json").write_text(json.dumps(labels), "utf-8")
    scores = np.random.default_rng(0).normal(size=(2, 30, 4)).astype(np.float32)
    targets = np.where(scores.mean(0) > 0, 1, -1)
    np.savez(folder / "a.npz", targets=targets, **{"global": scores[0], "local": scores[1]})
    colour_video(folder / CLIP)
    return folder


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "home"))


@dataclass(frozen=True)
class DocumentedLine:
    """A command line of a document, as a test runs it."""

    document: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}: {' '.join(self.words)}"

    @property
    def command(self) -> str:
        """The command's name in the table."""
        if self.words[0] == "taidpt-export":
            return "export"
        of_group = " ".join(self.words[1:3])
        return of_group if of_group in COMMANDS else self.words[1]

    @property
    def extra(self) -> str:
        """The extra that it needs; what is made of a bundle is made on the device."""
        of_bundle = self.words[1].endswith(".taidpt")
        return "" if self.command == "export" and of_bundle else COMMANDS[self.command].extra

    def run(self, install: BaseInstall, home: Path) -> subprocess.CompletedProcess[str]:
        """Run it on the test's own files, cameras replaced by a video; measure briefly.

        The model has random weights, which lose too much in int8 for the gate: --force.
        """
        words = [
            CLIP if re.match(r"(gst|rtsp):", word) else word.replace("/var/lib/taidpt/", "")
            for word in self.words
        ]
        if self.command == "bench":
            words += ["--seconds", "0.01", "--batches", "1"]
        if "int8" in words:
            words.append("--force")
        return install.run(*words, cwd=home)


def documented_lines() -> Iterator[DocumentedLine]:
    """Every command line of the documents that has something to run."""
    for document in DOCUMENTS:
        text = (REPOSITORY / "docs" / f"{document}.md").read_text("utf-8").replace("\\\n", " ")
        for match in (*COMMAND_LINE.finditer(text), *INLINE.finditer(text)):
            yield DocumentedLine(document, tuple(shlex.split(match[1])))


LINES = list(dict.fromkeys(documented_lines()))


def assert_one_error(done: subprocess.CompletedProcess[str], exit_code: int) -> str:
    """The command ended with this code and one error line, which is returned."""
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1, done.stderr
    return errors[0]


def test_table_of_extras_is_that_of_the_metadata() -> None:
    extras = _extras()
    assert {entry.extra for entry in COMMANDS.values()} <= set(extras)
    assert "torch" in _packages_of("demo", extras)
    assert "torch" not in extras[""]
    # packages that have extras of their own
    assert _packages_of("fleet", extras) == ["tritonclient"]
    assert {"pyarrow", "ray"} <= set(_packages_of("ray", extras))


def test_a_server_names_the_extra_of_its_client(base: BaseInstall, template: Path) -> None:
    done = base.run("taidpt", "tag", "triton://localhost/street", "photos", cwd=template)
    assert assert_one_error(done, 2).endswith("pip install 'taidpt[fleet]'")


@pytest.mark.parametrize("name", COMMANDS)
def test_command_runs_or_names_its_extra(base: BaseInstall, template: Path, name: str) -> None:
    """Every command of `--help` is here: stops at its extra, works, or stands in a document."""
    assert base.run("taidpt", *name.split(), "--help", cwd=template).returncode == 0
    if COMMANDS[name].extra:
        done = base.run("taidpt", *name.split(), *STOPS[name].split(), cwd=template)
        error = assert_one_error(done, 2)
        assert error.endswith(f"pip install 'taidpt[{COMMANDS[name].extra}]'"), error
    else:
        words = {" ".join(line.split()[:n]) for line in WORKS for n in (1, 2)}
        words |= {line.command for line in LINES}
        assert name in words


@pytest.mark.parametrize("words", WORKS)
def test_command_of_the_base_install_works(base: BaseInstall, template: Path, words: str) -> None:
    done = base.run("taidpt", *words.split(), cwd=template)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("call", "install"),
    [
        ("tune(['dog'], captions=['a dog'], model='toyworld', pretrained='embedded')", "[tune]"),
        ("export_bundle('street.safetensors')", "[export]"),
        ("add_engine('fixed.taidpt', 'fp16')", "onnx"),
        ("Tagger.load('street.taidpt').bank.add('dog', prompts='templates')", "[tune]"),
    ],
)
def test_python_call_names_its_extra(
    base: BaseInstall, home: Path, call: str, install: str
) -> None:
    code = (
        "import taidpt\n"
        f"try: taidpt.{call}\n"
        "except taidpt.runtime.MissingDependencyError as error: print(error, end='')"
    )
    done = base.run_python(code, cwd=home)
    assert done.returncode == 0, done.stderr
    assert "which is not installed: pip install " in done.stdout
    assert done.stdout.count("\n") == 0
    assert install in done.stdout.partition("pip install")[2]


@pytest.mark.parametrize("line", LINES, ids=str)
def test_documented_line_on_the_base_install(
    base: BaseInstall, home: Path, line: DocumentedLine
) -> None:
    done = line.run(base, home)
    if line.extra:
        error = assert_one_error(done, 2)
        assert error.endswith(f"pip install 'taidpt[{line.extra}]'"), error
    elif line.command == "export":
        assert assert_one_error(done, 2).endswith(
            "needs onnx, which is not installed: pip install onnx"
        )
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in LINES if not line.extra], ids=str)
def test_documented_line_on_the_install_of_the_jetson_page(
    jetson: BaseInstall, home: Path, line: DocumentedLine
) -> None:
    done = line.run(jetson, home)
    if "--engine" in line.words and "cpu" not in line.words:
        assert "TensorRT" in assert_one_error(done, 3)  # there is none in this environment
    else:
        assert done.returncode == 0, done.stderr

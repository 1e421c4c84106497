"""Every kind of install holds all four rooms, and type checkers see them. Needs no network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.support import REPOSITORY

ROOMS = {
    "taidpt": "taidpt",
    "export": "taidpt.export",
    "kernels": "taidpt.kernels",
    "runtime": "taidpt.runtime",
}
# Where the packages lie that ours depends on.
DEPENDENCIES = Path(np.__file__).parents[1]
PHOTOGRAPHS = {
    path.relative_to(REPOSITORY).as_posix()
    for path in (REPOSITORY / "export/demo/files").rglob("*.*")
}
LEFT_OUT = (".*", "build", "dist", "*.egg-info", "__pycache__", "tests", "benchmarks")
IMPORT_ALL = """
import site, sys
site.addsitedir(sys.argv[1])
sys.path.append(sys.argv[2])
import taidpt, taidpt.cli, taidpt.export, taidpt.kernels, taidpt.runtime
from taidpt.export.cli.commands import export
from taidpt.kernels.local_similarity.tiles import choose
from taidpt.runtime import Tagger
print(taidpt.export.__file__)
"""
SCRIPT = """\
from taidpt.runtime import Tagger, open_source

tagger = Tagger.load("bundle")
reveal_type(Tagger)
reveal_type(tagger)
for frame in open_source("picture.png"):
    result = tagger.tag(frame.image)
    reveal_type(result)
    print(frame.index, result)
"""


def pip(*arguments: str | Path) -> None:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", *map(str, arguments), *quiet]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout without what earlier builds left."""
    copy = tmp_path_factory.mktemp("checkout") / "taidpt"
    shutil.copytree(REPOSITORY, copy, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    pip("wheel", "--wheel-dir", checkout.parent / "wheel", checkout)
    return next((checkout.parent / "wheel").glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(checkout: Path) -> Path:
    out = checkout.parent / "sdist"
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(checkout)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.tar.gz"))


def test_wheel_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size <= 20 * 2**20
    names = zipfile.ZipFile(wheel).namelist()
    sources = {
        f"{package.replace('.', '/')}/{path.relative_to(REPOSITORY / folder).as_posix()}"
        for folder, package in ROOMS.items()
        for path in (REPOSITORY / folder).rglob("*.py")
    }
    assert sources == {name for name in names if name.endswith(".py")}
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "taidpt/py.typed" in names
    assert "taidpt/toyworld/files/model.safetensors" in names
    assert {f"taidpt/{name}" for name in PHOTOGRAPHS} <= set(names)
    assert "taidpt/runtime/pages/colours.css" in names
    assert "taidpt/runtime/serve/page/app.js" in names
    assert "taidpt/export/deepstream/nvdsinfer_taidpt.cpp" in names


def test_sdist_holds_what_cmake_builds(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    native = (REPOSITORY / "kernels" / "native").rglob("*.*")
    expected = {path.relative_to(REPOSITORY).as_posix() for path in native if path.is_file()}
    parser = "taidpt/export/deepstream/nvdsinfer_taidpt.cpp"
    assert {"CMakeLists.txt", "CMakePresets.json", parser, *expected} <= names
    assert {f"taidpt/{name}" for name in PHOTOGRAPHS} <= names


@pytest.mark.parametrize("kind", ["directory", "editable", "wheel", "sdist"])
def test_install_imports_every_room(
    kind: str, checkout: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    site = tmp_path / "site"
    source = checkout if kind in ("directory", "editable") else request.getfixturevalue(kind)
    pip(
        "install",
        "--no-compile",
        "--target",
        site,
        *(["--editable"] if kind == "editable" else []),
        source,
    )
    # without this environment's own editable install, and PYTHONPATH
    command = [sys.executable, "-ES", "-c", IMPORT_ALL, str(site), str(DEPENDENCIES)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    root = checkout if kind == "editable" else site
    assert done.stdout.strip() == str(root / "taidpt" / "export" / "__init__.py")


@pytest.fixture(scope="module")
def user(checkout: Path) -> tuple[Path, Path]:
    """The Python of an environment with an editable install, and a user's script beside it."""
    folder = checkout.parent / "user"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip("install", "--target", next(folder.glob("lib/python*/site-packages")), "-e", checkout)
    script = folder / "script.py"
    script.write_text(SCRIPT, "utf-8")
    return folder / "bin" / "python", script


def test_mypy_resolves_the_tagger_in_an_editable_install(user: tuple[Path, Path]) -> None:
    python, script = user
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python)]
    command += ["--cache-dir", str(script.parent / "cache"), "--ignore-missing-imports"]
    command += ["--follow-imports", "silent", str(script)]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=False)
    shown = [line.partition("Revealed type is ")[2] for line in done.stdout.splitlines()]
    tagger, result = "taidpt.runtime.tagger.tagger.Tagger", "taidpt.runtime.results.TagResult"
    constructor, *instances = [each for each in shown if each]
    assert constructor.endswith(f'-> {tagger}"'), done.stdout
    assert instances == [f'"{tagger}"', f'"{result}"'], done.stdout
    assert "Success" in done.stdout, done.stdout


def test_pyright_resolves_the_tagger_in_an_editable_install(user: tuple[Path, Path]) -> None:
    """basedpyright is pyright as a wheel that brings its own node."""
    python, script = user
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", str(python), "--outputjson"]
    done = subprocess.run(
        [*command, str(script)], cwd=script.parent, capture_output=True, text=True, check=False
    )
    messages = json.loads(done.stdout)["generalDiagnostics"]
    shown = [each["message"] for each in messages if each["severity"] == "information"]
    assert shown == [
        'Type of "Tagger" is "type[Tagger]"',
        'Type of "tagger" is "Tagger"',
        'Type of "result" is "TagResult"',
    ], messages
    assert not [each for each in messages if each["severity"] == "error"], messages

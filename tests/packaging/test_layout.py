"""The rooms as one package: the links in a checkout, and what each kind of install holds."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import REPOSITORY

ROOMS = {
    "taidpt": "taidpt",
    "export": "taidpt.export",
    "kernels": "taidpt.kernels",
    "runtime": "taidpt.runtime",
}


def test_links_lead_to_the_rooms() -> None:
    for folder in set(ROOMS) - {"taidpt"}:
        link = REPOSITORY / "taidpt" / folder
        assert link.is_symlink(), f"{link} is no link: clone with symbolic links enabled"
        assert link.readlink().as_posix() == f"../{folder}"


def test_every_python_file_lies_in_a_package() -> None:
    for folder in ROOMS:
        for source in (REPOSITORY / folder).rglob("*.py"):
            assert (source.parent / "__init__.py").is_file(), f"{source} is in no package"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(out), str(REPOSITORY)], check=True)
    return next(out.glob("*.whl"))


def test_wheel_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size <= 20 * 2**20
    names = zipfile.ZipFile(wheel).namelist()
    sources = {
        f"{package.replace('.', '/')}/{path.relative_to(REPOSITORY / folder).as_posix()}"
        for folder, package in ROOMS.items()
        for path in (REPOSITORY / folder).rglob("*.py")
    }
    assert sources <= set(names)
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "taidpt/toyworld/files/model.safetensors" in names
    assert not any(name.startswith("tests/") for name in names)


def test_installed_wheel_imports_every_room(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(site),
    ]
    subprocess.run([*command, str(wheel)], check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "import taidpt, taidpt.runtime, taidpt.export, taidpt.kernels, taidpt.cli\n"
        "print(taidpt.export.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip().startswith(str(site))


def test_bare_checkout_finds_its_rooms() -> None:
    """`python -c 'import taidpt.runtime'` from the checkout's root, without an install (`-S`)."""
    code = "import taidpt.runtime.errors as errors; print(errors.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(REPOSITORY / "taidpt" / "runtime" / "errors.py")

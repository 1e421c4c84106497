"""The rooms as one package: the links in a checkout, and what each kind of install holds."""

from __future__ import annotations

import subprocess
import sys

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

"""An environment that holds the base install alone, made of links to packages that are here."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support import REPOSITORY

__all__ = ["BaseInstall"]

_NAME = re.compile(r"[\w.-]+")


class BaseInstall:
    """A virtual environment with `taidpt`, its dependencies, and theirs; nothing else."""

    def __init__(self, folder: Path, extra_packages: tuple[str, ...] = ()) -> None:
        """Make the environment.

        Args:
            folder: a new folder.
            extra_packages: distributions to add, with their dependencies.
        Raises:
            importlib.metadata.PackageNotFoundError: one of them is not installed here.
        """
        command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
        subprocess.run(command, check=True)
        self._python = folder / "bin" / "python"
        site = next((folder / "lib").glob("python*/site-packages"))
        names: set[str] = set()
        for name in ("taidpt", *extra_packages):
            _collect(name, names)
        for name in names - {"taidpt"}:
            _link(name, site)
        # The install under test may be known by dist-info or, from the checkout, by egg-info.
        required = [
            f"Requires-Dist: {line}" for line in importlib.metadata.requires("taidpt") or ()
        ]
        head = ["Metadata-Version: 2.1", "Name: taidpt", "Version: 0"]
        metadata = site / "taidpt-0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("\n".join([*head, *required, ""]), "utf-8")
        (site / "taidpt.pth").write_text(f"{REPOSITORY}\n", "utf-8")

    def run(
        self, *words: str, cwd: Path, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run `taidpt …` or `taidpt-export …`, as the installed commands do."""
        main = "export_main" if words[0] == "taidpt-export" else "main"
        return self.run_python(f"from taidpt.cli import {main}; {main}()", *words[1:], cwd=cwd)

    def run_python(self, code: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run `python -c CODE WORDS` in the environment."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"XDG_STATE_HOME": str(cwd / "state"), "XDG_CACHE_HOME": str(cwd / "cache")}
        return subprocess.run(
            [str(self._python), "-c", code, *words],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def _collect(name: str, names: set[str]) -> None:
    """A distribution and what it requires without an extra."""
    if name in names:
        return
    names.add(name)
    for line in importlib.metadata.requires(name) or ():
        required = _NAME.match(line)
        if required is not None and ";" not in line:
            _collect(required[0], names)


def _link(name: str, site: Path) -> None:
    """Link the top-level files and folders of an installed distribution."""
    distribution = importlib.metadata.distribution(name)
    for top in {path.parts[0] for path in distribution.files or ()} - {"..", "__pycache__"}:
        target = site / top
        if not target.exists():
            target.symlink_to(Path(str(distribution.locate_file(top))))

"""Run mypy over the whole import tree.

Type checkers do not follow setuptools' package-dir mapping, so the four rooms are linked into one
`taidpt` folder under build/typing first (git-ignored, rebuilt at each run).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINKS = ROOT / "build" / "typing"


def main() -> int:
    """Link the rooms and check them; mypy's own exit code."""
    package = LINKS / "taidpt"
    shutil.rmtree(LINKS, ignore_errors=True)
    package.mkdir(parents=True)
    for entry in sorted((ROOT / "taidpt").iterdir()):
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    for room in ("export", "kernels", "runtime"):
        (package / room).symlink_to(ROOT / room)
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    return subprocess.run([*command, "-p", "taidpt"], cwd=LINKS, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

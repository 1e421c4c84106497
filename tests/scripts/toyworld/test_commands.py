"""The scripts run from any folder and write to the package's files unless told otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taidpt.toyworld import assets
from tests.support import REPOSITORY


@pytest.mark.parametrize("script", ["build_files.py", "train.py"])
def test_script_runs_from_any_folder(script: str, tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "scripts" / "toyworld" / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "--files" in done.stdout
    assert str(assets.FOLDER) in "".join(done.stdout.split())

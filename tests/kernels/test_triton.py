"""Run triton_cases.py in a process of its own: on the GPU, else in Triton's interpreter.

Triton reads TRITON_INTERPRET when it is first imported, which PyTorch may have done long ago here.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.support import REPOSITORY, require

CASES = Path(__file__).with_name("triton_cases.py")


def test_kernels_in_a_process_of_their_own() -> None:
    require("triton", importlib.util.find_spec("triton") is not None, "pip install triton")
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout

"""Every kernel and option compiles for real GPUs, which the interpreter does not show.

The table's tiles must fit shared memory and registers: a tile whose products spill is slow, and
that shows without a GPU.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

from taidpt.kernels.local_similarity.tiles import SHARED_LIMITS
from tests.support import REPOSITORY, require

# A handful of registers a thread beside some two hundred; the products of a tile that does not fit
# spill hundreds of bytes.
SPILL_LIMIT = 32
# Tiles of 128 classes by 256 patches of one picture: 250 bytes between product and softmax, none in
# the product's loop, and the fastest all the same: 48.7 us at C = 20,000 on an H200, 54.1 with the
# best tiles that spill nothing (benchmarks/results/limits-nvidia-h200-2026-11-28.json).
MEASURED_SPILLS = {(90, "one picture"): 320}
ARCHITECTURES = (80, 90)


@cache
def answers() -> list[dict[str, Any]]:
    require("triton", importlib.util.find_spec("triton") is not None, "pip install triton")
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compile_kernels", *map(str, ARCHITECTURES)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_kernel_compiles_for_ampere_and_hopper() -> None:
    assert len({each["what"] for each in answers()}) == len(answers()) // 2 == 15
    for each in answers():
        assert each["shared_bytes"] <= SHARED_LIMITS[each["architecture"]], each


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_tables_tiles_stay_in_registers(architecture: int) -> None:
    spilled = {
        each["what"]: each["spilled_bytes"]
        for each in answers()
        if each["architecture"] == architecture
        and each["spilled_bytes"] > MEASURED_SPILLS.get((architecture, each["what"]), SPILL_LIMIT)
    }
    assert spilled == {}


def test_asynchronous_products_keep_a_buffer_a_stage() -> None:
    """Hopper's: with fewer buffers the next copy overwrites an operand that is still read."""
    found = {each["what"]: each["buffers"] for each in answers() if each["architecture"] == 90}
    assert {"P256", "one picture", "gradient", "ahead of time, wide"} <= {
        what for what, pairs in found.items() if pairs
    }
    for what, pairs in found.items():
        assert all(held >= stages for stages, held in pairs), what

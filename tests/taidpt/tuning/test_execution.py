"""Mixed precision and several processes: the same run, carried out otherwise."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from taidpt.clip.model import ClipModel
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.errors import InputError
from taidpt.tuning import loop as tuning_loop
from taidpt.tuning.execution import _Accelerated, execution_of
from taidpt.tuning.tuner import tune
from tests.support import REPOSITORY, require
from tests.taidpt.tuning.tuning_case import SETTINGS, TAGS, TEXTS, run_case

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _accelerate() -> None:
    found = importlib.util.find_spec("accelerate") is not None
    require("accelerate", found, "pip install 'taidpt[accelerate]'")


def moved(prompts: TunedPrompts) -> float:
    """How far the global context went from where it began."""
    shape = prompts.contexts["global"].shape
    start = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(SETTINGS.seed))
    return float((prompts.contexts["global"] - start).norm())


def distance(first: TunedPrompts, second: TunedPrompts) -> float:
    return max(
        float((value - second.contexts[name]).norm()) for name, value in first.contexts.items()
    )


@pytest.mark.usefixtures("fewer_templates")
def test_one_accelerate_process_equals_the_plain_run(
    resnet_clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tune(resnet_clip, TAGS, TEXTS, SETTINGS)
    used = []

    def accelerated(precision: str, device: torch.device, batch: int) -> _Accelerated:
        used.append(precision)
        return _Accelerated(precision, device)

    monkeypatch.setattr(tuning_loop, "execution_of", accelerated)
    found = tune(resnet_clip, TAGS, TEXTS, SETTINGS)
    assert used == ["fp32"]
    assert distance(found, plain) == 0.0
    assert found.provenance["losses"] == plain.provenance["losses"]


@pytest.mark.usefixtures("fewer_templates")
def test_mixed_precision_stays_close_to_fp32(resnet_clip: ClipModel) -> None:
    plain = tune(resnet_clip, TAGS, TEXTS, SETTINGS)
    mixed = tune(resnet_clip, TAGS, TEXTS, replace(SETTINGS, precision="bf16"))
    assert all(value.dtype == torch.float32 for value in mixed.contexts.values())
    assert mixed.provenance["settings"]["precision"] == "bf16"
    # bf16 keeps eight bits of every product: near, and not the same
    assert 0.0 < distance(mixed, plain) < 0.2 * moved(plain)
    assert mixed.provenance["losses"][-1] == pytest.approx(plain.provenance["losses"][-1], rel=0.02)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """By gloo on the CPU, each with half of every batch; one of them writes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        sys.executable,
        "-m",
        "tests.taidpt.tuning.tuning_case",
        str(tmp_path / "run.checkpoint"),
    ]
    command += [str(tmp_path / "prompts.safetensors")]
    started = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], errors
    shared = TunedPrompts.load(tmp_path / "prompts.safetensors")
    alone = run_case(tmp_path / "alone.checkpoint")
    # sums of two halves round otherwise than sums of the whole
    assert distance(shared, alone) < 1e-4 * moved(alone)
    assert shared.provenance["losses"] == pytest.approx(alone.provenance["losses"], rel=1e-5)


def test_impossible_execution_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="precision 'tf32': expected one of fp32, bf16, fp16"):
        replace(SETTINGS, precision="tf32")
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        execution_of("fp16", CPU, 8)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="a batch of 2 cannot be shared by 4 processes"):
        execution_of("fp32", CPU, 2)

"""How a tuning step runs: in one fp32 process, or through Accelerate.

Accelerate is used for mixed precision and where its launcher (or torchrun) started several
processes. Each process then takes its share of a batch, and gradients are averaged.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages

__all__ = ["PRECISIONS", "Execution", "execution_of", "is_main_process", "local_rank", "processes"]

PRECISIONS = ("fp32", "bf16", "fp16")

Rows = npt.NDArray[np.int64]


def processes() -> int:
    """Number of processes that a launcher started for this run; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process is the one that writes files and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def local_rank() -> int:
    """Number of this process on its machine, and of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


class Execution:
    """One process in fp32, in plain PyTorch."""

    def prepare(
        self, step: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The step and the optimiser to use from now on; the step is called as before."""
        return step, optimizer

    def share(self, rows: Rows) -> Rows:
        """This process's share of a batch."""
        return rows

    def weight(self, own: int, whole: int) -> float:
        """Factor on the mean loss of `own` rows; then the mean over processes is the batch mean."""
        return 1.0

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of the loss."""
        torch.autograd.backward(loss)

    def mean(self, value: Tensor) -> float:
        """Mean of a number over the processes."""
        return float(value)

    def close(self) -> None:
        """End the run."""


class _Accelerated(Execution):
    def __init__(self, precision: str, device: torch.device) -> None:
        with optional_packages("mixed precision or several processes", "accelerate"):
            from accelerate import Accelerator
        self._accelerator = Accelerator(
            mixed_precision="no" if precision == "fp32" else precision,
            cpu=device.type == "cpu",
            device_placement=False,
        )

    def prepare(
        self, step: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        prepared: tuple[Any, Any] = self._accelerator.prepare(step, optimizer)
        return prepared

    def share(self, rows: Rows) -> Rows:
        return rows[self._accelerator.process_index :: self._accelerator.num_processes]

    def weight(self, own: int, whole: int) -> float:
        return float(self._accelerator.num_processes * own / whole)

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def mean(self, value: Tensor) -> float:
        mean: Tensor = self._accelerator.reduce(value, reduction="mean")
        return mean.item()

    def close(self) -> None:
        from accelerate.state import AcceleratorState

        self._accelerator.end_training()
        # Accelerate keeps one state per process; a later run may use another precision
        AcceleratorState._reset_state(reset_partial_state=True)


def execution_of(precision: str, device: torch.device, batch: int) -> Execution:
    """The plain execution, or Accelerate for mixed precision or several processes.

    Args:
        precision: one of `PRECISIONS`.
        device: where the step runs.
        batch: texts or pictures per step, over all processes.
    Raises:
        InputError: fp16 without a GPU, or more processes than rows in a batch.
        MissingDependencyError: Accelerate is needed and not installed.
    """
    if processes() > batch:
        raise InputError(
            f"a batch of {batch} cannot be shared by {processes()} processes: start fewer, or "
            "raise --batch"
        )
    if precision == "fp16" and device.type == "cpu":
        raise InputError("precision fp16 needs a GPU (gradient scaling); on a CPU use bf16 or fp32")
    if precision == "fp32" and processes() == 1:
        return Execution()
    return _Accelerated(precision, device)

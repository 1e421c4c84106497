"""Layout of an engine's inputs and outputs in one block of memory; needs no GPU."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ALIGNMENT", "BufferPlan", "Slot", "TensorSpec", "plan_buffers"]

ALIGNMENT = 256  # bytes; TensorRT refuses addresses with a smaller alignment


@dataclass(frozen=True)
class TensorSpec:
    """An input or output at its largest size: `shape` begins with the largest batch."""

    name: str
    shape: tuple[int, ...]
    dtype: npt.DTypeLike
    is_input: bool


@dataclass(frozen=True)
class Slot:
    """The place of one tensor: `offset` bytes from the start of the block."""

    spec: TensorSpec
    offset: int

    @property
    def nbytes(self) -> int:
        """Size of the tensor at its largest, in bytes."""
        return math.prod(self.spec.shape) * np.dtype(self.spec.dtype).itemsize

    def nbytes_of(self, batch: int) -> int:
        """Size of its first `batch` rows, in bytes."""
        return self.nbytes // self.spec.shape[0] * batch

    def view(self, block: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """The tensor at its largest, as a view of a block of bytes."""
        part = block[self.offset : self.offset + self.nbytes]
        return part.view(self.spec.dtype).reshape(self.spec.shape)


@dataclass(frozen=True)
class BufferPlan:
    """All slots by name, and their total size in bytes."""

    slots: Mapping[str, Slot]
    nbytes: int

    @property
    def outputs(self) -> tuple[Slot, ...]:
        """The slots of the outputs."""
        return tuple(slot for slot in self.slots.values() if not slot.spec.is_input)


def plan_buffers(tensors: Iterable[TensorSpec]) -> BufferPlan:
    """Lay tensors one after the other, each at a multiple of `ALIGNMENT`."""
    slots: dict[str, Slot] = {}
    end = 0
    for spec in tensors:
        slots[spec.name] = slot = Slot(spec, end)
        end += -(-slot.nbytes // ALIGNMENT) * ALIGNMENT
    return BufferPlan(slots, end)

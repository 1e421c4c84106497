"""One call of a model: its tensors by gRPC, or in a region of shared memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.triton_client.shared_memory import Region

__all__ = ["infer", "places"]

Array = npt.NDArray[Any]

_ALIGNMENT = 64  # bytes; a cache line
# The protocol's names of the types that outputs here have.
_TYPES = {"FP32": "<f4", "INT64": "<i8"}


def places(sizes: Mapping[str, int]) -> tuple[dict[str, tuple[int, int]], int]:
    """Where tensors of these sizes, in bytes, lie in a region: name → offset, size; and its end."""
    found, end = {}, 0
    for name, size in sizes.items():
        found[name] = (end, size)
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return found, end


def infer(
    client: Any,
    model: str,
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    shared: tuple[Region, Mapping[str, tuple[int, int]]] | None,
) -> dict[str, Array]:
    """Call a model.

    Args:
        client: of gRPC.
        model: its name.
        inputs: arrays of bytes (uint8) and of strings (object).
        outputs: names of the tensors that are wanted.
        shared: a region, and where tensors lie in it; others go by gRPC. None: all do.
    Raises:
        InferenceServerException: the server's error, or there is no server.
    """
    from tritonclient import grpc

    region, place = (None, {}) if shared is None else shared
    sent, asked = [], []
    for name, array in inputs.items():
        kind = "BYTES" if array.dtype == object else "UINT8"
        tensor = grpc.InferInput(name, list(array.shape), kind)
        if region is not None and name in place:
            offset, size = place[name]
            np.frombuffer(region.memory, np.uint8, size, offset)[:] = array.reshape(-1)
            tensor.set_shared_memory(region.name, size, offset)
        else:
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
        sent.append(tensor)
    for name in outputs:
        wanted = grpc.InferRequestedOutput(name)
        if region is not None and name in place:
            offset, size = place[name]
            wanted.set_shared_memory(region.name, size, offset)
        asked.append(wanted)
    answer = client.infer(model, sent, outputs=asked)
    return {
        name: answer.as_numpy(name)
        if region is None or name not in place
        else _copied(answer.get_output(name), region, place[name][0])
        for name in outputs
    }


def _copied(output: Any, region: Region, offset: int) -> Array:
    """A tensor of a region, which the next call writes over."""
    shape = tuple(output.shape)
    kind = np.dtype(_TYPES[output.datatype])
    found: Array = np.frombuffer(region.memory, kind, math.prod(shape), offset)
    return np.array(found.reshape(shape))

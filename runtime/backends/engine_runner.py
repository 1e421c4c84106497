"""One engine with its memory: frames in, outputs out.

Host frames go through pinned memory, which the GPU of a Jetson accesses in place. Frames on the
GPU are read in place. The first run of a batch size makes single calls; later runs launch a CUDA
graph.
"""

from __future__ import annotations

import ctypes
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.backends.buffers import plan_buffers
from taidpt.runtime.backends.cuda_driver import CudaDriver
from taidpt.runtime.backends.tensorrt_library import LoadedEngine
from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import BackendError
from taidpt.runtime.preprocess.preprocessor import U8Array

__all__ = ["EngineRunner"]

_LOG = logging.getLogger("taidpt.runtime")
# Lanes are batch sizes times addresses of GPU frames. A decoder cycles through a few buffers, and a
# stream has two batch sizes, the full one and the last one.
_MOST_LANES = 16


@dataclass
class _Lane:
    """One batch size at one address of frames: its own context and CUDA graph."""

    context: Any
    graph: int | None = None
    warm: bool = False


class EngineRunner(Closing):
    """Runs an engine with one bank; not thread-safe."""

    def __init__(
        self,
        engine: LoadedEngine,
        cuda: CudaDriver,
        frames: str,
        frame_shape: tuple[int, ...],
        bank: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        """Lay out the memory and upload the bank.

        Args:
            engine: a loaded engine.
            cuda: the driver, current in this thread.
            frames: the name of the input for frames.
            frame_shape: of one frame.
            bank: the other inputs, which keep their values.
        Raises:
            BackendError: the engine refuses the shapes, or memory is exhausted.
        """
        self._engine, self._cuda, self._input = engine, cuda, frames
        self._frame_shape = frame_shape
        self._bank_shapes = {name: values.shape for name, values in bank.items()}
        self._lanes: OrderedDict[tuple[int, int], _Lane] = OrderedDict()
        self._memory: list[int] = []
        self.uses_graphs = True
        self.least, self.most = engine.batches(frames)
        try:
            self._stream = self._keep(cuda.create_stream())
            self._scratch = self._keep(cuda.allocate(engine.scratch_bytes))
            self._allocate()
            self.put(bank)
        except BaseException:
            self.close()
            raise

    def run(self, frames: U8Array) -> dict[str, npt.NDArray[Any]]:
        """Run at most `most` host frames; the outputs by name."""
        # rows beyond the frames, up to the engine's smallest batch, keep their old content
        batch = max(len(frames), self.least)
        self._views[self._input][: len(frames)] = frames
        return self._run(batch, self._own_frames, len(frames))

    def run_device(self, address: int, batch: int, stream: int | None) -> dict[str, Any]:
        """Run frames on the GPU after the work that is in `stream` now."""
        if stream is not None:
            self._cuda.follow(self._stream, stream)
        return self._run(batch, address, batch)

    def fits(self, bank: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Whether a bank has the shapes of the current one."""
        return {name: values.shape for name, values in bank.items()} == self._bank_shapes

    def put(self, bank: Mapping[str, npt.NDArray[Any]]) -> None:
        """Upload a bank of the same shapes in place of the current one."""
        for name, values in bank.items():
            self._views[name][...] = values
            self._copy_in(name, len(values))
        if bank:
            self._cuda.wait(self._stream)

    def close(self) -> None:
        """Free graphs, contexts and memory."""
        for lane in self._lanes.values():
            self._drop(lane)
        self._lanes.clear()
        self._views: dict[str, npt.NDArray[Any]] = {}
        while self._memory:
            self._cuda.free(self._memory.pop())

    def _keep(self, handle: int) -> int:
        self._memory.append(handle)
        return handle

    def _allocate(self) -> None:
        """Allocate a block on the host, and one on a GPU with memory of its own."""
        shapes = {self._input: (self.most, *self._frame_shape), **self._bank_shapes}
        context = self._engine.new_context(self._scratch)
        self._plan = plan = plan_buffers(self._engine.tensors(shapes, context))
        host = self._cuda.allocate_host(plan.nbytes)
        self._host = self._keep(host.address)
        self._mapped = self._cuda.integrated
        self._device = host.device_address
        if not self._mapped:
            self._device = self._keep(self._cuda.allocate(plan.nbytes))
        block = np.ctypeslib.as_array((ctypes.c_uint8 * plan.nbytes).from_address(host.address))
        self._views = {name: slot.view(block) for name, slot in plan.slots.items()}
        self._own_frames = self._device + plan.slots[self._input].offset

    def _copy_in(self, name: str, rows: int) -> None:
        if not self._mapped:
            slot = self._plan.slots[name]
            here, there = self._device + slot.offset, self._host + slot.offset
            self._cuda.copy_in(here, there, slot.nbytes_of(rows), self._stream)

    def _run(self, batch: int, address: int, count: int) -> dict[str, npt.NDArray[Any]]:
        lane = self._lane(batch, address)
        if lane.warm and lane.graph is None and self.uses_graphs:
            self._capture(lane, batch, address)
        if lane.graph is None:
            self._enqueue(lane, batch, address)
        else:
            self._cuda.launch(lane.graph, self._stream)
        self._cuda.wait(self._stream)
        lane.warm = True
        outputs = (slot.spec.name for slot in self._plan.outputs)
        return {name: self._views[name][:count].copy() for name in outputs}

    def _lane(self, batch: int, address: int) -> _Lane:
        key = batch, address
        if key in self._lanes:
            self._lanes.move_to_end(key)
            return self._lanes[key]
        if len(self._lanes) >= _MOST_LANES:
            self._drop(self._lanes.popitem(last=False)[1])
        self._lanes[key] = lane = _Lane(self._bound_context(batch, address))
        return lane

    def _bound_context(self, batch: int, address: int) -> Any:
        """A context with its shapes and addresses set."""
        context = self._engine.new_context(self._scratch)
        shapes = {self._input: (batch, *self._frame_shape), **self._bank_shapes}
        self._engine.tensors(shapes, context)
        for name, slot in self._plan.slots.items():
            here = address if name == self._input else self._device + slot.offset
            if not context.set_tensor_address(name, here):
                raise BackendError(f"{name} at {here:#x}: {self._engine.logger.last_error}")
        return context

    def _enqueue(self, lane: _Lane, batch: int, address: int) -> None:
        """Enqueue copies and inference; mapped memory and frames on the GPU need no copy."""
        if address == self._own_frames:
            self._copy_in(self._input, batch)
        if not lane.context.execute_async_v3(self._stream):
            raise BackendError(f"the engine failed: {self._engine.logger.last_error}")
        for slot in () if self._mapped else self._plan.outputs:
            here, there = self._host + slot.offset, self._device + slot.offset
            self._cuda.copy_out(here, there, slot.nbytes_of(batch), self._stream)

    def _capture(self, lane: _Lane, batch: int, address: int) -> None:
        """Record this lane's calls; after a failure the engine runs without CUDA graphs."""
        try:
            with self._cuda.capture(self._stream) as captured:
                self._enqueue(lane, batch, address)
        except BackendError as error:
            self.uses_graphs = False
            _LOG.warning("TensorRT runs without a CUDA graph, which is slower: %s", error)
            return
        lane.graph = captured[0]

    def _drop(self, lane: _Lane) -> None:
        if lane.graph is not None:
            self._cuda.drop_graph(lane.graph)
        lane.context = None

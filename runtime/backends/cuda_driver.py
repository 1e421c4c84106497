"""The CUDA driver calls that inference needs, each checked.

Needs `cuda-bindings` alone. Addresses and handles are plain integers outside this module.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import BackendError, InputError, MissingDependencyError, one_line

__all__ = ["CudaDriver", "HostMemory"]


@dataclass(frozen=True)
class HostMemory:
    """Pinned host memory: its address in this process and on the GPU."""

    address: int
    device_address: int


class CudaDriver(Closing):
    """One GPU by its primary context, which TensorRT and the CUDA runtime use as well."""

    def __init__(self, ordinal: int = 0) -> None:
        """Open the driver and the GPU's primary context.

        Raises:
            MissingDependencyError: cuda-bindings is not installed.
            BackendError: there is no driver, or no GPU.
        """
        self._api = _import_bindings()
        self.ordinal = ordinal
        try:
            self._call("cuInit", 0)
        except (RuntimeError, ImportError, OSError) as error:
            raise BackendError(f"the CUDA driver cannot be used: {one_line(error)[:300]}") from None
        self._device = self._call("cuDeviceGet", ordinal)
        self._context: Any = self._call("cuDevicePrimaryCtxRetain", self._device)
        # address or stream → the call that frees it
        self._owned: dict[int, str] = {}
        self.enter()

    @property
    def integrated(self) -> bool:
        """Whether GPU and CPU share their memory, as on a Jetson."""
        attribute = self._api.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED
        return bool(self._call("cuDeviceGetAttribute", attribute, self._device))

    def enter(self) -> None:
        """Make the GPU current in the calling thread; cheap enough to call before each use."""
        if self._context is None:
            raise BackendError("this tagger is closed; load the bundle again")
        self._call("cuCtxSetCurrent", self._context)

    def create_stream(self) -> int:
        """Create a stream that does not wait for the default stream."""
        flag = self._api.CUstream_flags.CU_STREAM_NON_BLOCKING
        return self._keep(self._call("cuStreamCreate", int(flag)), "cuStreamDestroy")

    def allocate(self, nbytes: int) -> int:
        """Allocate GPU memory, aligned to at least 256 bytes; freed by `close`."""
        return self._keep(self._call("cuMemAlloc", max(nbytes, 1)), "cuMemFree")

    def allocate_host(self, nbytes: int) -> HostMemory:
        """Allocate pinned host memory that the GPU accesses in place; freed by `close`."""
        flag = self._api.CU_MEMHOSTALLOC_DEVICEMAP
        memory = self._call("cuMemHostAlloc", max(nbytes, 1), flag)
        address = self._keep(memory, "cuMemFreeHost")
        return HostMemory(address, int(self._call("cuMemHostGetDevicePointer", address, 0)))

    def free(self, handle: int) -> None:
        """Free a stream or memory of this object."""
        self._call(self._owned.pop(handle), handle)

    def copy_in(self, device: int, host: int, nbytes: int, stream: int) -> None:
        """Copy from host to GPU, in stream order."""
        self._call("cuMemcpyHtoDAsync", device, host, nbytes, stream)

    def copy_out(self, host: int, device: int, nbytes: int, stream: int) -> None:
        """Copy from GPU to host, in stream order."""
        self._call("cuMemcpyDtoHAsync", host, device, nbytes, stream)

    def device_of(self, address: int) -> int:
        """The number of the GPU that owns the memory at an address.

        Raises:
            InputError: the address is not in GPU memory.
        """
        attribute = self._api.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        try:
            return int(self._call("cuPointerGetAttribute", attribute, address))
        except BackendError:
            raise InputError(f"address {address:#x} is not in a GPU's memory") from None

    def wait(self, stream: int) -> None:
        """Wait until all work in the stream is done."""
        self._call("cuStreamSynchronize", stream)

    def follow(self, stream: int, other: int) -> None:
        """Make `stream` wait for the work that is in `other` now."""
        event = self._call("cuEventCreate", int(self._api.CUevent_flags.CU_EVENT_DISABLE_TIMING))
        try:
            self._call("cuEventRecord", event, other)
            self._call("cuStreamWaitEvent", stream, event, 0)
        finally:
            self._call("cuEventDestroy", event)

    @contextlib.contextmanager
    def capture(self, stream: int) -> Iterator[list[int]]:
        """Record the work put into the stream instead of running it.

        Yields:
            A list; after the `with` it holds the executable graph.
        """
        mode = self._api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)
        captured: list[int] = []
        try:
            yield captured
        except BaseException:
            with contextlib.suppress(BackendError):
                self._call("cuGraphDestroy", self._call("cuStreamEndCapture", stream))
            raise
        graph = self._call("cuStreamEndCapture", stream)
        try:
            captured.append(int(self._call("cuGraphInstantiate", graph, 0)))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """Run a captured graph."""
        self._call("cuGraphLaunch", graph, stream)

    def drop_graph(self, graph: int) -> None:
        """Free a captured graph."""
        self._call("cuGraphExecDestroy", graph)

    def close(self) -> None:
        """Free everything in reverse order of creation; may be called twice."""
        if self._context is None:
            return
        self.enter()
        for handle in reversed(list(self._owned)):
            self.free(handle)
        self._call("cuDevicePrimaryCtxRelease", self._device)
        self._context = None

    def _keep(self, handle: Any, free: str) -> int:
        self._owned[int(handle)] = free
        return int(handle)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the driver and return the value beside its status.

        Raises:
            BackendError: the status is an error; the message has its name.
        """
        status, *values = getattr(self._api, name)(*arguments)
        if int(status):
            raise BackendError(f"CUDA: {name} failed: {status.name}")
        return values[0] if values else None


def _import_bindings() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise MissingDependencyError(
            f"cuda-bindings cannot be loaded ({error}); pip install 'cuda-bindings<13' for "
            "JetPack 6 and other CUDA 12 drivers, cuda-bindings for CUDA 13"
        ) from None
    return driver

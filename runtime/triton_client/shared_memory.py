"""Memory that the server maps, where it runs on this machine: frames and features are not sent.

A region has no name in the file system once the server has mapped it, so a killed process leaves
no file behind.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.runtime.closing import Closing

__all__ = ["Region", "SharedMemory"]

_FOLDER = Path("/dev/shm")  # where Linux keeps the regions of shm_open
_PREFIX = "taidpt-"


@dataclass(frozen=True)
class Region:
    """One region: its name at the server, and the memory."""

    name: str
    memory: mmap.mmap


class SharedMemory(Closing):
    """Regions that calls borrow, one each; safe to use from several threads at once."""

    def __init__(self, client: Any) -> None:
        self._client, self._idle = client, list[Region]()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, client: Any) -> SharedMemory | None:
        """Shared memory with a server, or None: it sees other memory, as in a container.

        Regions of processes that are gone are taken from the server.
        """
        from tritonclient.utils import InferenceServerException

        shared = cls(client)
        try:
            shared._remove_stale()
            with shared.region(mmap.PAGESIZE):
                return shared
        except (OSError, InferenceServerException):
            return None

    @contextlib.contextmanager
    def region(self, size: int) -> Iterator[Region]:
        """Borrow a region of at least `size` bytes; one whose call failed is not used again.

        Raises:
            OSError: this machine has no memory left for it.
            InferenceServerException: the server cannot map it, or is down.
        """
        region = self._take(size)
        try:
            yield region
        except BaseException:
            self._drop(region)
            raise
        with self._lock:
            self._idle.append(region)

    def close(self) -> None:
        """Take all regions from the server."""
        with self._lock:
            regions, self._idle = self._idle, []
        for region in regions:
            self._drop(region)

    def _take(self, size: int) -> Region:
        with self._lock:
            region = self._idle.pop() if self._idle else None
        if region is not None and len(region.memory) >= size:
            return region
        if region is not None:
            self._drop(region)
        return self._make(size)

    def _make(self, size: int) -> Region:
        name = f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        path = _FOLDER / name
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            # unlike ftruncate, this fails here when memory is short, not with SIGBUS later
            os.posix_fallocate(descriptor, 0, size)
            region = Region(name, mmap.mmap(descriptor, size))
            self._client.register_system_shared_memory(name, f"/{name}", size)
        finally:
            os.close(descriptor)
            path.unlink()
        return region

    def _drop(self, region: Region) -> None:
        """Take a region from the server, which may be down or another one by now."""
        from tritonclient.utils import InferenceServerException

        with contextlib.suppress(InferenceServerException):
            self._client.unregister_system_shared_memory(region.name)

    def _remove_stale(self) -> None:
        """Take the regions of killed processes from the server, which would keep them mapped.

        A process of another container may be taken for dead; its next call makes a new region.
        """
        for name in self._client.get_system_shared_memory_status().regions:
            owner = name.removeprefix(_PREFIX).partition("-")[0]
            alive = owner.isdigit() and Path("/proc", owner).exists()
            if name.startswith(_PREFIX) and not alive:
                self._client.unregister_system_shared_memory(name)

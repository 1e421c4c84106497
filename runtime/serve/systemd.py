"""Tells systemd that the service is ready, alive and stopping; without systemd, nobody."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

from taidpt.runtime.closing import Closing

__all__ = ["Systemd"]


class Systemd(Closing):
    """Sends READY=1 now, WATCHDOG=1 while the service is well, and STOPPING=1 at the end.

    The socket is that of the environment's NOTIFY_SOCKET (sd_notify(3)); WATCHDOG_USEC is the time
    after which systemd restarts a service that is silent.
    """

    def __init__(self, is_well: Callable[[], bool]) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._is_well = is_well
        self._stopped = threading.Event()
        self._tell("READY=1")
        limit_us = os.environ.get("WATCHDOG_USEC", "")
        if self._address and limit_us.isdigit() and int(limit_us):
            period_s = int(limit_us) / 2e6  # half of the limit, as the manual advises
            threading.Thread(target=self._watch, args=(period_s,), daemon=True).start()

    def close(self) -> None:
        """Say that the service stops."""
        self._stopped.set()
        self._tell("STOPPING=1")

    def _watch(self, period_s: float) -> None:
        while not self._stopped.wait(period_s):
            if self._is_well():
                self._tell("WATCHDOG=1")

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # an abstract socket
            address = "\0" + address[1:]
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.sendto(message.encode(), address)

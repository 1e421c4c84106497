"""What tests of senders share."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from taidpt.runtime.sinks.background import SendPolicy
from taidpt.runtime.stream.moment import Moment

__all__ = ["QUICK", "events_of", "free_port", "wait_for"]

QUICK = SendPolicy(first_pause_s=0.05, longest_pause_s=0.1, drain_s=5.0)


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def events_of(moments: list[Moment]) -> list[tuple[str, str, float]]:
    return [(e.tag, e.kind, e.time_s) for moment in moments for e in moment.events]

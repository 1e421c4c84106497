"""Sinks that send: a bounded queue and a thread, so that a slow receiver never stalls tagging."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from taidpt.runtime.events.machine import Interval
from taidpt.runtime.sinks.jsonl import event_record
from taidpt.runtime.stream.moment import Moment

__all__ = ["BackgroundSender", "EventSender", "SendPolicy"]

_LOG = logging.getLogger("taidpt.runtime")


@dataclass(frozen=True)
class SendPolicy:
    """How long records wait for their receiver.

    Attributes:
        most_waiting: records kept while it is away; beyond, the oldest are lost and counted.
        first_pause_s: pause after a failure; each further one doubles it.
        longest_pause_s: the longest pause.
        drain_s: how long the end of a run waits for the rest to be sent.
    """

    most_waiting: int = 10_000
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    drain_s: float = 5.0


class BackgroundSender:
    """Hands records to `send`, one after another, in a thread of its own; retries failures.

    Attributes:
        sent: records that arrived.
        lost: records that did not: too many were waiting, or the run ended.
        failures: tries that failed.
    """

    def __init__(
        self, name: str, send: Callable[[dict[str, Any]], None], policy: SendPolicy | None = None
    ) -> None:
        """Begin to send.

        Args:
            name: of the receiver, without credentials, for the log.
            send: sends one record, or raises OSError.
            policy: how long records wait.
        """
        self.name = name
        self.sent = self.lost = self.failures = 0
        self._send, self._policy = send, policy or SendPolicy()
        self._waiting: deque[dict[str, Any]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, record: dict[str, Any]) -> None:
        """Queue a record; never waits."""
        with self._changed:
            if len(self._waiting) >= self._policy.most_waiting:
                self._waiting.popleft()
                self.lost += 1
                if self.lost == 1:
                    _LOG.warning("%s: too slow or away; the oldest records are lost", self.name)
            self._waiting.append(record)
            self._changed.notify()

    def close(self) -> None:
        """Send what is waiting, for a bounded time, and count the rest as lost."""
        with self._changed:
            self._closing = True
            self._deadline = time.monotonic() + self._policy.drain_s
            self._changed.notify()
        self._thread.join(self._policy.drain_s + 1.0)
        with self._changed:
            self.lost += len(self._waiting)
            self._waiting.clear()
        if self.lost or self.failures:
            _LOG.warning(
                "%s: %d sent, %d lost, %d tries failed",
                self.name,
                self.sent,
                self.lost,
                self.failures,
            )

    def _run(self) -> None:
        pause_s = self._policy.first_pause_s
        while (record := self._next()) is not None:
            try:
                self._send(record)
            except OSError as error:
                self.failures += 1
                self._put_back(record)
                if self.failures == 1:
                    _LOG.warning("%s: %s; trying again", self.name, " ".join(str(error).split()))
                self._rest(pause_s)
                pause_s = min(pause_s * 2, self._policy.longest_pause_s)
            else:
                self.sent += 1
                pause_s = self._policy.first_pause_s

    def _next(self) -> dict[str, Any] | None:
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if not self._waiting or time.monotonic() >= self._deadline:
                return None
            return self._waiting.popleft()

    def _put_back(self, record: dict[str, Any]) -> None:
        with self._changed:
            if len(self._waiting) >= self._policy.most_waiting:
                self.lost += 1
            else:
                self._waiting.appendleft(record)

    def _rest(self, seconds: float) -> None:
        """Pause; the end of the run cuts it short."""
        end = time.monotonic() + seconds
        with self._changed:
            while (now := time.monotonic()) < min(end, self._deadline):
                self._changed.wait(min(end, self._deadline, now + 0.5) - now)


class EventSender:
    """A sink that sends each event as a record, by any sender."""

    def __init__(self, sender: BackgroundSender, finish: Callable[[], None] | None = None) -> None:
        """Send through `sender`; `finish` is called when all is closed."""
        self.sender, self._finish = sender, finish

    def write(self, moment: Moment) -> None:
        """Queue the events that this frame decided."""
        for event in moment.events:
            self.sender.put(event_record(moment.frame.source, event))

    def end_source(self, source: str, intervals: Sequence[Interval], end_s: float) -> None:
        """Nothing to do: every event stands alone."""

    def close(self) -> None:
        """Send the rest, for a bounded time."""
        self.sender.close()
        if self._finish is not None:
            self._finish()

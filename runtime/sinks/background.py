"""Sending in the background: a bounded queue and a thread, so that tagging never waits."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from taidpt.runtime.events.machine import Event
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sinks.jsonl import event_record
from taidpt.runtime.stream.moment import Moment

__all__ = ["BackgroundSender", "EventSender", "SendPolicy"]

_LOG = logging.getLogger("taidpt.runtime")
# An answer's status line may be 64 KiB of anything; a log line needs its beginning.
_LONGEST_REASON = 200


@dataclass(frozen=True)
class SendPolicy:
    """How long records wait for their receiver.

    The defaults hold some hours of events of one camera in about 10 MB, find a receiver that
    restarts within seconds, ask an absent one twice a minute, and delay the end of a run by no
    more than a person would wait.

    Attributes:
        most_waiting: size of the queue, in records; when it is full, the oldest is dropped and
            counted as lost.
        first_pause_s: pause after the first failure, in seconds; every further failure doubles it.
        longest_pause_s: upper bound of the pause, in seconds.
        drain_s: how long `close` waits for the queue to empty, in seconds.
    """

    most_waiting: int = 10_000
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    drain_s: float = 5.0


class BackgroundSender:
    """Sends records one after another in its own thread, and retries failures.

    Attributes:
        sent: number of records that arrived.
        lost: number of records dropped: the queue was full, or the run ended.
        failures: number of tries that failed.
    """

    def __init__(
        self, name: str, send: Callable[[dict[str, Any]], None], policy: SendPolicy | None = None
    ) -> None:
        """Start the thread.

        Args:
            name: the receiver's name in the log, without credentials.
            send: sends one record, or raises: any exception is a failed try.
            policy: how long records wait.
        """
        self.name = name
        self.sent = self.lost = self.failures = 0
        self._send, self._policy = send, policy or SendPolicy()
        self._waiting: deque[dict[str, Any]] = deque()
        self._in_hand = False
        self._changed = threading.Condition()
        self._closing = self._abandoned = False
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, record: dict[str, Any]) -> None:
        """Queue a record without waiting."""
        with self._changed:
            if len(self._waiting) >= self._policy.most_waiting:
                self._waiting.popleft()
                self.lost += 1
                if self.lost == 1:
                    _LOG.warning("%s: too slow or away; the oldest records are dropped", self.name)
            self._waiting.append(record)
            self._changed.notify()

    def close(self) -> None:
        """Send the queued records for at most `drain_s` seconds; count the rest as lost."""
        with self._changed:
            self._closing = True
            self._deadline = time.monotonic() + self._policy.drain_s
            self._changed.notify()
        self._thread.join(self._policy.drain_s + 1.0)
        with self._changed:
            self.lost += len(self._waiting) + self._in_hand
            self._waiting.clear()
            self._abandoned = True
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
            except Exception as error:  # whatever a peer or a library does wrong, records wait
                self._put_back(record)
                if self.failures == 1:
                    _LOG.warning("%s: %s; trying again", self.name, _describe(error))
                self._pause(pause_s)
                pause_s = min(pause_s * 2, self._policy.longest_pause_s)
            else:
                self._count_sent()
                pause_s = self._policy.first_pause_s

    def _next(self) -> dict[str, Any] | None:
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if not self._waiting or time.monotonic() >= self._deadline:
                return None
            self._in_hand = True
            return self._waiting.popleft()

    def _count_sent(self) -> None:
        with self._changed:
            self._in_hand = False
            if not self._abandoned:
                self.sent += 1

    def _put_back(self, record: dict[str, Any]) -> None:
        with self._changed:
            self.failures += 1
            self._in_hand = False
            if self._abandoned:
                return
            if len(self._waiting) >= self._policy.most_waiting:
                self.lost += 1
            else:
                self._waiting.appendleft(record)

    def _pause(self, seconds: float) -> None:
        """Pause; `close` cuts it short."""
        end = time.monotonic() + seconds
        with self._changed:
            while (now := time.monotonic()) < min(end, self._deadline):
                self._changed.wait(min(end, self._deadline, now + 0.5) - now)


def _describe(error: Exception) -> str:
    """One line; the errors of some libraries have no text."""
    text = " ".join(str(error).split())[:_LONGEST_REASON]
    return text if isinstance(error, OSError) and text else f"{type(error).__name__} {text}".strip()


class EventSender(Sink):
    """A sink that sends each event as one record."""

    def __init__(self, sender: BackgroundSender, finish: Callable[[], None] | None = None) -> None:
        """Send through `sender`; call `finish` after it is closed."""
        self.sender, self._finish = sender, finish

    def write(self, moment: Moment) -> None:
        """Queue the events that were decided at this frame."""
        self.resend(moment.frame.source, moment.events)

    def resend(self, source: str, events: Sequence[Event]) -> None:
        """Queue events; a receiver may have some of them already, with the same numbers."""
        for event in events:
            self.sender.put(event_record(source, event))

    def close(self) -> None:
        """Send the queued events for a bounded time."""
        self.sender.close()
        if self._finish is not None:
            self._finish()

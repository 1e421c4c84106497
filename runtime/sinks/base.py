"""The interface of every sink."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from taidpt.runtime.events.machine import Event, Interval
from taidpt.runtime.stream.moment import Moment

__all__ = ["Sink"]


class Sink(ABC):
    """Receives the moments of each source, then the source's end; closed once, also on errors.

    Attributes:
        reopens: whether `reopen` continues in a new file.
    """

    reopens = False

    @abstractmethod
    def write(self, moment: Moment) -> None:
        """Receive one moment."""

    def resend(  # noqa: B027 - most sinks write frames
        self, source: str, events: Sequence[Event]
    ) -> None:
        """Receive events that were decided before a restart and may not have been written."""

    def end_source(  # noqa: B027 - most sinks write as they go
        self, source: str, intervals: Sequence[Interval], end_s: float
    ) -> None:
        """Receive the timeline of a source that has ended, `end_s` seconds long."""

    def reopen(self) -> None:  # noqa: B027 - most sinks have one file
        """Continue in a new file, after the old one was moved away."""

    def close(self) -> None:  # noqa: B027 - some sinks hold nothing
        """Finish the output, so that what was written is valid."""

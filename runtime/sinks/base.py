"""What every sink looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from taidpt.runtime.events.machine import Interval
from taidpt.runtime.stream.moment import Moment

__all__ = ["Sink"]


class Sink(Protocol):
    """Takes the moments of a stream, then the stream's end; closed once, whatever happened."""

    def write(self, moment: Moment) -> None:
        """Take one moment."""

    def end_source(self, source: str, intervals: Sequence[Interval], end_s: float) -> None:
        """A source has ended, with these intervals; more sources may follow."""

    def close(self) -> None:
        """Finish and close, so that what was written is valid."""

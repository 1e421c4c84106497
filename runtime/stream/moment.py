"""One tagged frame of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taidpt.runtime.events.machine import Event
from taidpt.runtime.results import Tag, TagResult
from taidpt.runtime.sources.base import Frame

__all__ = ["Moment"]


@dataclass(frozen=True, eq=False)
class Moment:
    """One tagged frame of a stream.

    Attributes:
        frame: the decoded frame.
        result: its scores, tags and heatmaps.
        events: the on and off events that this frame decided.
        on: names of the tags that are on after smoothing, in the bank's order. Without times, and
            for an export with `--top-k`: the tags that reach their thresholds in this frame.
        still: whether the frame was not tagged and carries the result of the last tagged frame.
    """

    frame: Frame
    result: TagResult
    events: tuple[Event, ...]
    on: tuple[str, ...]
    still: bool = False

    @property
    def time(self) -> float | None:
        """Seconds on the source's clock; None for pictures."""
        return self.frame.time_s

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The tags of this frame alone, best score first."""
        return self.result.tags

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without the image."""
        return {
            "source": self.frame.source,
            "index": self.frame.index,
            "time_s": self.time,
            "on": list(self.on),
            **self.result.to_dict(),
            "events": [event.to_dict() for event in self.events],
        }

    def __repr__(self) -> str:
        return f"Moment({self.frame!r}, on: {', '.join(self.on) or 'nothing'})"

"""Scores to on/off events: smoothing and hysteresis, without a clock or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taidpt.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from taidpt.runtime.events.machine import (
        Event as Event,
        EventMachine as EventMachine,
        EventSettings as EventSettings,
        Interval as Interval,
        timeline as timeline,
    )

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "machine": (
            "Event",
            "EventMachine",
            "EventSettings",
            "Interval",
            "timeline",
        )
    },
)

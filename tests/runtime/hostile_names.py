"""Tag names that break outputs which do not escape them."""

from __future__ import annotations

from taidpt.runtime.events.machine import Interval

__all__ = ["HOSTILE", "INTERVALS"]

HOSTILE = (
    "<script>alert(1)</script>",
    "=2+5",
    'say "hi" & go',
    "a\nb --> c",
    "naïve café 🚦",
    "\x1b[2J\x1b]0;title\x07 \x9b31m \u202egod",
)
INTERVALS = (Interval(HOSTILE[0], 0.5, 2.0, 1.0), Interval(HOSTILE[3], 1.0, 3.0, 1.0, open=True))

"""Rules: what is seen, for how long, without what, at which hours; and what happens then."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from taidpt.runtime.sites.config import RuleConfig

__all__ = ["Rule", "is_scheduled", "rule_record"]

RULE_SCHEMA = "taidpt-rule/1"


class Rule:
    """The state of a rule; it fires once each time that its condition becomes true."""

    def __init__(self, config: RuleConfig, wall_clock: Callable[[], float] = time.time) -> None:
        self.config, self._wall_clock = config, wall_clock
        self._since_s: dict[str, float] = {}
        self._fired: set[str] = set()

    def concerns(self, camera: str, zone: str) -> bool:
        """Whether the rule looks at this camera, or at this zone of it."""
        return (self.config.camera or camera) == camera and (self.config.zone or "") == zone

    def fires(self, camera: str, time_s: float, on: Collection[str]) -> bool:
        """Whether the rule fires at this frame.

        Args:
            camera: the frame's camera.
            time_s: seconds on its clock.
            on: tags that are on, in the rule's zone.
        """
        rule = self.config
        holds = (
            rule.tag in on
            and not any(name in on for name in rule.without)
            and is_scheduled(rule, datetime.fromtimestamp(self._wall_clock()))
        )
        if not holds:
            self._since_s.pop(camera, None)
            self._fired.discard(camera)
            return False
        since_s = self._since_s.setdefault(camera, time_s)
        if camera in self._fired or time_s - since_s < rule.for_:
            return False
        self._fired.add(camera)
        return True


def is_scheduled(rule: RuleConfig, now: datetime) -> bool:
    """Whether a rule is in force at a moment of the local clock.

    Hours that end before they begin, as 22:00-06:00, run over midnight; the small hours belong to
    the day on which they began.
    """
    hours = rule.hours
    if hours is None:
        return not rule.days or rule.weekdays[now.weekday()]
    begin, end = hours
    minute, day = now.hour * 60 + now.minute, now.weekday()
    if begin <= end:
        inside = begin <= minute < end
    else:
        inside = minute >= begin or minute < end
        day = (day - 1) % 7 if minute < end else day
    return inside and (not rule.days or rule.weekdays[day])


def rule_record(config: RuleConfig, camera: str, at: float) -> dict[str, Any]:
    """What a webhook and MQTT get when a rule fires."""
    return {
        "schema": RULE_SCHEMA,
        "rule": config.id,
        "camera": camera,
        "zone": config.zone,
        "tag": config.tag,
        "at": at,
    }

"""What one `taidpt serve` is asked to do, as plain values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.address import parse_address
from taidpt.runtime.storage.user_folders import state_folder

__all__ = [
    "BundleConfig",
    "CameraConfig",
    "ClipConfig",
    "HomeAssistantConfig",
    "ItemError",
    "Retention",
    "RuleConfig",
    "SiteConfig",
    "ZoneConfig",
]

# Ids stand in addresses, topics and file names, so they hold nothing that needs an escape.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TOPIC = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-4]):([0-5]\d)")


class ItemError(InputError):
    """A value that does not fit the others of its site.

    Attributes:
        item: the part of the configuration that is wrong.
    """

    def __init__(self, item: object, reason: str) -> None:
        super().__init__(reason)
        self.item = item


def _check_id(what: str, text: str) -> None:
    """Raise InputError unless a text can be the id of a camera, a bundle, a zone or a rule."""
    if not _ID.fullmatch(text):
        raise InputError(
            f"{what} {text!r}: an id has 1 to 64 of the letters a-z, A-Z, digits, - and _, and "
            "begins with a letter or a digit"
        )


def _distinct(what: str, items: Sequence[Any]) -> list[str]:
    ids: list[str] = []
    for item in items:
        if item.id in ids:
            raise ItemError(item, f"two {what} have the id {item.id!r}")
        ids.append(item.id)
    return ids


def _refer(kind: str, item: Any, what: str, known: Sequence[str]) -> None:
    """Raise ItemError if an item names a camera, a bundle or a zone that does not exist."""
    name = getattr(item, what)
    if name is not None and name not in known:
        raise ItemError(
            item,
            f"{kind} {item.id!r}: there is no {what} {name!r}; there are: {', '.join(known)}",
        )


@dataclass(frozen=True)
class BundleConfig:
    """One bundle: the cameras that name it are tagged together.

    Attributes:
        id: its name in addresses.
        path: its folder.
        bank: class bank to begin with; None: the last one that was edited here, or the bundle's.
        prompts: prompts file for names that are added; None: templates.
    """

    id: str
    path: str
    bank: str | None = None
    prompts: str | None = None

    def __post_init__(self) -> None:
        _check_id("bundle", self.id)


@dataclass(frozen=True)
class CameraConfig:
    """One camera.

    Attributes:
        id: its name in addresses, events and topics.
        source: a camera, a stream or a pipeline; a file is played again and again.
        max_fps: frames that are tagged a second; None takes the site's.
        roi: part of each frame as "x,y,width,height" in pixels; None uses the whole frame.
        bundle: id of the bundle that tags it; None where the site has one.
    """

    id: str
    source: str
    max_fps: float | None = None
    roi: str | None = None
    bundle: str | None = None

    def __post_init__(self) -> None:
        _check_id("camera", self.id)
        parse_address(self.source)  # a file that is missing is an error now, not in the night


@dataclass(frozen=True)
class ZoneConfig:
    """A named region of a camera.

    Attributes:
        id: its name in events, rules and topics.
        camera: the camera's id.
        points: at least three corners (x, y), in parts of the picture from 0 to 1.
        tags: tags that are looked for in it; none means all.
    """

    id: str
    camera: str
    points: tuple[tuple[float, float], ...]
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_id("zone", self.id)
        if len(self.points) < 3:
            raise InputError(f"zone {self.id!r}: needs 3 points at least, got {len(self.points)}")
        for x, y in self.points:
            if not (0 <= x <= 1 and 0 <= y <= 1):
                raise InputError(
                    f"zone {self.id!r}: points are parts of the picture from 0 to 1, got {x}, {y}"
                )


@dataclass(frozen=True)
class RuleConfig:
    """What fires when, and who is told. The page is always told.

    Attributes:
        id: its name in events and topics.
        tag: it has to be on.
        camera: the camera's id; None: any.
        zone: the zone's id; None: the whole picture.
        without: none of these tags may be on.
        for_: for so many seconds.
        between: hours of the local clock, "22:00-06:00"; None: always.
        days: weekdays, "mon" to "sun"; none means all.
        webhook, mqtt: addresses that are told.
    """

    id: str
    tag: str
    camera: str | None = None
    zone: str | None = None
    without: tuple[str, ...] = ()
    for_: float = 0.0
    between: str | None = None
    days: tuple[str, ...] = ()
    webhook: str | None = None
    mqtt: str | None = None

    def __post_init__(self) -> None:
        _check_id("rule", self.id)
        if not 0 <= self.for_ < 1e6:
            raise InputError(f"rule {self.id!r}: for should be seconds from 0, got {self.for_:g}")
        for day in self.days:
            if day not in _DAYS:
                raise InputError(f"rule {self.id!r}: days are {', '.join(_DAYS)}, got {day!r}")
        if self.hours == (-1, -1):
            raise InputError(
                f"rule {self.id!r}: between should be like 22:00-06:00, got {self.between!r}"
            )

    @property
    def hours(self) -> tuple[int, int] | None:
        """Begin and end in minutes of the day; (-1, -1) if they are not hours."""
        if self.between is None:
            return None
        match = _HOURS.fullmatch(self.between)
        if match is None:
            return -1, -1
        begin, end = (int(match[at]) * 60 + int(match[at + 1]) for at in (1, 3))
        return begin, end

    @property
    def weekdays(self) -> tuple[bool, ...]:
        """For Monday to Sunday, whether the day is named."""
        return tuple(day in self.days for day in _DAYS)


@dataclass(frozen=True)
class HomeAssistantConfig:
    """Where Home Assistant listens.

    Attributes:
        mqtt: the broker, `mqtt://[user:password@]host[:port]`.
        prefix: Home Assistant's own discovery prefix.
        topic: the topic below which states are published.
    """

    mqtt: str
    prefix: str = "homeassistant"
    topic: str = "taidpt"

    def __post_init__(self) -> None:
        for name in ("prefix", "topic"):
            if not _TOPIC.fullmatch(getattr(self, name)):
                raise InputError(
                    f"{name} should be a topic of letters, digits, - and _, got "
                    f"{getattr(self, name)!r}"
                )


@dataclass(frozen=True)
class ClipConfig:
    """How much of the camera's video is kept with an event that goes on.

    Attributes:
        before, after: seconds before and after the event.
        longest_gop: the longest time between two keyframes that a clip can begin at, in seconds.
    """

    before: float = 3.0
    after: float = 5.0
    longest_gop: float = 10.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 60:
                raise InputError(f"clips: {name} should be 0 to 60 seconds, got {value:g}")


@dataclass(frozen=True)
class Retention:
    """How long events are kept: whichever limit is reached first.

    Two weeks answer "what happened on that day"; 5 GB hold about 100,000 pictures.
    """

    days: float = 14.0
    gigabytes: float = 5.0

    def __post_init__(self) -> None:
        for name in ("days", "gigabytes"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} should be above 0, got {getattr(self, name):g}")


@dataclass(frozen=True)
class SiteConfig:
    """Everything that one `taidpt serve` is asked to do.

    Attributes:
        bundle: the folder of the bundle of all cameras; None where `bundles` has several.
        cameras: at least one.
        host, port: where the page is served.
        token_file: file with the token that a client needs; None needs no token.
        data: folder of events, banks and clips.
        bank, prompts: of `bundle`, as in `BundleConfig`.
        bundles: several bundles; each camera names its own.
        device, threads, trust_engine, resize: as in `Tagger.load`.
        batch: frames in one run of the graph; None: one for each camera of a bundle, 8 at most.
        max_fps: frames of a camera that are tagged a second.
        smoothing, min_on, min_off: as in `StreamSettings`, in seconds.
        skip_still: as in `StreamSettings`.
        webhook, mqtt: addresses that get every event.
        home_assistant: where Home Assistant listens; None: nowhere.
        zones, rules: regions of cameras, and what happens when something is seen.
        clips: video of each event that goes on; None keeps none.
        retention: how long events are kept.
    """

    bundle: str | None = None
    cameras: tuple[CameraConfig, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    token_file: str | None = None
    data: str = field(default_factory=lambda: str(state_folder() / "serve"))
    bank: str | None = None
    prompts: str | None = None
    bundles: tuple[BundleConfig, ...] = ()
    device: str = "auto"
    threads: int | None = None
    trust_engine: bool = False
    resize: str = "exact"
    batch: int | None = None
    max_fps: float = 5.0
    smoothing: float = 0.3
    min_on: float = 0.2
    min_off: float = 0.5
    skip_still: float | None = None
    webhook: str | None = None
    mqtt: str | None = None
    home_assistant: HomeAssistantConfig | None = None
    zones: tuple[ZoneConfig, ...] = ()
    rules: tuple[RuleConfig, ...] = ()
    clips: ClipConfig | None = None
    retention: Retention = field(default_factory=Retention)

    def __post_init__(self) -> None:
        if not self.cameras:
            raise InputError("there is no camera; give a SOURCE, or `cameras` in --config")
        cameras = _distinct("cameras", self.cameras)
        self._check_bundles()
        zones = _distinct("zones", self.zones)
        _distinct("rules", self.rules)
        for zone in self.zones:
            _refer("zone", zone, "camera", cameras)
        for rule in self.rules:
            _refer("rule", rule, "camera", cameras)
            _refer("rule", rule, "zone", zones)
        if not 0 <= self.port <= 65535:
            raise InputError(f"port should be from 0 to 65535, got {self.port}")

    def _check_bundles(self) -> None:
        if not self.bundles:
            if self.bundle is None:
                raise InputError("there is no bundle; give BUNDLE, or `bundle` in --config")
        elif self.bundle or self.bank or self.prompts:
            raise InputError(
                "`bundle`, `bank` and `prompts` are for sites of one bundle; in `bundles` each has "
                "its own `path`, `bank` and `prompts`"
            )
        ids = _distinct("bundles", self.models)
        for camera in self.cameras:
            _refer("camera", camera, "bundle", ids)
            if camera.bundle is None and len(ids) > 1:
                raise ItemError(
                    camera, f"camera {camera.id!r} needs a `bundle`; there are: {', '.join(ids)}"
                )
        for model in self.models:
            if not self.cameras_of(model):
                raise ItemError(model, f"no camera names the bundle {model.id!r}")

    @property
    def models(self) -> tuple[BundleConfig, ...]:
        """The bundles; where there is one without an id, it is "main"."""
        return self.bundles or (BundleConfig("main", str(self.bundle), self.bank, self.prompts),)

    def cameras_of(self, bundle: BundleConfig) -> tuple[CameraConfig, ...]:
        """The cameras that a bundle tags."""
        is_only = len(self.models) == 1
        return tuple(one for one in self.cameras if is_only or one.bundle == bundle.id)

    def banks_of(self, bundle: BundleConfig) -> Path:
        """The folder of a bundle's edited banks."""
        return self.folder / "banks" / (bundle.id if self.bundles else "")

    @property
    def folder(self) -> Path:
        """The folder of events, banks and clips."""
        return Path(self.data)

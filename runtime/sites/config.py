"""What one `taidpt serve` is asked to do, as plain values."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.address import parse_address
from taidpt.runtime.storage.user_folders import state_folder

__all__ = ["CameraConfig", "Retention", "SiteConfig", "check_id"]

# Ids stand in addresses, topics and file names, so they hold nothing that needs an escape.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_id(what: str, text: str) -> None:
    """Raise InputError unless a text can be the id of a camera, a zone or a rule."""
    if not _ID.fullmatch(text):
        raise InputError(
            f"{what} {text!r}: an id has 1 to 64 of the letters a-z, A-Z, digits, - and _, and "
            "begins with a letter or a digit"
        )


@dataclass(frozen=True)
class CameraConfig:
    """One camera.

    Attributes:
        id: its name in addresses, events and topics.
        source: a camera, a stream or a pipeline; a file is played again and again.
        max_fps: frames that are tagged a second; None takes the site's.
        roi: part of each frame as "x,y,width,height" in pixels; None uses the whole frame.
    """

    id: str
    source: str
    max_fps: float | None = None
    roi: str | None = None

    def __post_init__(self) -> None:
        check_id("camera", self.id)
        parse_address(self.source)  # a file that is missing is an error now, not in the night


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
        bundle: the folder of the bundle.
        cameras: at least one.
        host, port: where the page is served.
        token_file: file with the token that a client needs; None needs no token.
        data: folder of events, banks and clips.
        bank: class bank to begin with; None: the last one that was edited here, or the bundle's.
        prompts: prompts file for names that are added; None: templates.
        device, threads, trust_engine, resize: as in `Tagger.load`.
        batch: frames in one run of the graph; None: one for each camera, 8 at most.
        max_fps: frames of a camera that are tagged a second.
        smoothing, min_on, min_off: as in `StreamSettings`, in seconds.
        skip_still: as in `StreamSettings`.
        webhook, mqtt: addresses that get every event.
        retention: how long events are kept.
    """

    bundle: str
    cameras: tuple[CameraConfig, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    token_file: str | None = None
    data: str = field(default_factory=lambda: str(state_folder() / "serve"))
    bank: str | None = None
    prompts: str | None = None
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
    retention: Retention = field(default_factory=Retention)

    def __post_init__(self) -> None:
        if not self.cameras:
            raise InputError("there is no camera; give a SOURCE, or `cameras` in --config")
        ids = [camera.id for camera in self.cameras]
        for name in ids:
            if ids.count(name) > 1:
                raise InputError(f"two cameras have the id {name!r}")
        if not 0 <= self.port <= 65535:
            raise InputError(f"port should be from 0 to 65535, got {self.port}")

    @property
    def batch_size(self) -> int:
        """Frames in one run of the graph."""
        return self.batch or min(len(self.cameras), 8)

    @property
    def folder(self) -> Path:
        """The folder of events, banks and clips."""
        return Path(self.data)

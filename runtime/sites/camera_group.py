"""The cameras that one bundle tags: one tagger, one batch, one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import EventMachine
from taidpt.runtime.sites.bank_edits import BankEdits
from taidpt.runtime.sites.camera import CameraSource
from taidpt.runtime.sites.clips import PacketRing
from taidpt.runtime.sites.config import BundleConfig, CameraConfig, SiteConfig
from taidpt.runtime.sites.score_history import ScoreHistory
from taidpt.runtime.sites.zones import Zone
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.sources.combined import MergedSource
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.stream.stream import Stream, StreamSettings
from taidpt.runtime.tag.request import parse_roi
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.runtime.top_k import refuse_top

__all__ = ["Camera", "CameraGroup"]

# A tagger that has given no result for so long although cameras deliver frames hangs, in seconds.
_STUCK_S = 30.0


@dataclass(eq=False)
class Camera:
    """One camera of a running site.

    Attributes:
        config: what was asked for.
        bundle: id of the bundle that tags it.
        source: its frames.
        zones: its regions.
        latest: its last tagged frame; None before the first.
        tagged: number of its tagged frames.
        history: its scores of the last hour.
        packets: its last seconds as packets; None without clips.
    """

    config: CameraConfig
    bundle: str
    source: CameraSource
    zones: list[Zone] = field(default_factory=list)
    latest: Moment | None = None
    tagged: int = 0
    history: ScoreHistory = field(default_factory=ScoreHistory)
    packets: PacketRing | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return self.config.id


class CameraGroup(Closing):
    """Runs the cameras of one bundle through one tagger, in a thread.

    Attributes:
        config: the bundle.
        tagger: tags the frames.
        edits: changes the tags.
        cameras: by id.
        stream: the running stream, with its profile.
    """

    def __init__(
        self, config: BundleConfig, site: SiteConfig, tagger: Tagger, edits: BankEdits
    ) -> None:
        """Prepare the cameras; nothing is opened yet.

        Args:
            config: the bundle.
            site: what was asked for.
            tagger: tags the frames.
            edits: changes the tagger's tags.
        Raises:
            InputError: the bundle was exported with `--top-k`, or an option of a camera is wrong.
        """
        refuse_top(tagger.bundle.manifest.graph.top_k, config.path, "serving")
        self.config, self.tagger, self.edits = config, tagger, edits
        cameras = site.cameras_of(config)
        settings = StreamSettings(
            batch=site.batch or min(len(cameras), 8),
            smoothing_s=site.smoothing,
            min_on_s=site.min_on,
            min_off_s=site.min_off,
            keep_events=False,
            skip_still=site.skip_still,
        )
        self.cameras = {one.id: _camera(one, config.id, site, tagger) for one in cameras}
        for zone in site.zones:
            if zone.camera in self.cameras:
                self.cameras[zone.camera].zones.append(Zone(zone, tagger, settings))
        self._merged = MergedSource([camera.source for camera in self.cameras.values()])
        self.stream = Stream(tagger, self._merged, settings)
        self._stopping = False
        self._last_s = time.monotonic()
        self._thread = threading.Thread(target=lambda: None)

    def start(
        self, handle: Callable[[Camera, Moment], None], end: Callable[[Exception | None], None]
    ) -> None:
        """Begin to tag.

        Args:
            handle: called with each moment, in the group's thread.
            end: called once, with the error that ended the tagging; None after `close`.
        """
        self._thread = threading.Thread(
            target=self._run, args=(handle, end), daemon=True, name="tagging"
        )
        self._thread.start()

    @property
    def is_stuck(self) -> bool:
        """Whether cameras deliver frames and none of them is tagged."""
        delivered = [camera.source.status.last_s for camera in self.cameras.values()]
        newest = max((seconds for seconds in delivered if seconds is not None), default=None)
        return newest is not None and newest - self._last_s >= _STUCK_S

    def dropped(self, camera: str) -> int:
        """Frames of a camera that were skipped because newer ones had arrived."""
        return self._merged.dropped_by_source.get(camera, 0)

    def machines(self, cameras: Iterable[Camera]) -> dict[str, EventMachine]:
        """Smoothing and hysteresis of cameras, and of each of their zones."""
        machines = {}
        for camera in cameras:
            machines[camera.id] = self.stream.machine(camera.id)
            machines |= {zone.source: zone.machine for zone in camera.zones}
        return machines

    def close(self) -> None:
        """Stop the cameras and the tagging; close the tagger and the text tower."""
        self._stopping = True
        for camera in self.cameras.values():
            camera.source.close()
        self.stream.close()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self.edits.tower.close()
        self.tagger.close()

    def _run(
        self, handle: Callable[[Camera, Moment], None], end: Callable[[Exception | None], None]
    ) -> None:
        failure: Exception | None = None
        try:
            for moment in self.stream:
                camera = self.cameras[moment.frame.source]
                camera.latest = moment
                camera.tagged += 1
                self._last_s = time.monotonic()
                handle(camera, moment)
            if not self._stopping:
                failure = InputError("every camera has ended")
        except Exception as error:  # the process ends with it
            failure = error
        end(failure)


def _camera(camera: CameraConfig, bundle: str, site: SiteConfig, tagger: Tagger) -> Camera:
    ring = None if site.clips is None else PacketRing(site.clips)
    options = SourceOptions(
        max_fps=camera.max_fps or site.max_fps,
        roi=parse_roi(camera.roi),
        on_packet=None if ring is None else ring.take,
    )
    options = tagger.preprocess.source_options(options)
    return Camera(camera, bundle, CameraSource(camera.id, camera.source, options), packets=ring)

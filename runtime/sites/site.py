"""All cameras of a site through one tagger: what is seen now, and what is kept."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Event, rebase_state
from taidpt.runtime.painting.drawing import jpeg, rgb_image
from taidpt.runtime.sinks.background import BackgroundSender
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sites.camera import CameraSource
from taidpt.runtime.sites.clips import PacketRing
from taidpt.runtime.sites.config import CameraConfig, SiteConfig
from taidpt.runtime.sites.rules import Rule, rule_record
from taidpt.runtime.sites.score_history import ScoreHistory
from taidpt.runtime.sites.store import EventStore, NewEvent, StoredEvent
from taidpt.runtime.sites.zones import Zone
from taidpt.runtime.sources.base import Frame, SourceOptions
from taidpt.runtime.sources.combined import MergedSource
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.stream.stream import Stream, StreamSettings
from taidpt.runtime.tag.request import parse_roi
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.runtime.top_k import refuse_top

__all__ = ["Camera", "Site"]

_LOG = logging.getLogger("taidpt.runtime")

# Width of the picture that is kept with an event, in pixels: enough to see who or what it was.
_PICTURE_WIDTH = 640
# States of tags are saved once a second, with events at once.
_STATE_S = 1.0
# A tagger that has given no result for so long although cameras deliver frames hangs, in seconds.
_STUCK_S = 30.0

Listener = Callable[["Camera", Moment], None]


@dataclass(eq=False)
class Camera:
    """One camera of a running site.

    Attributes:
        config: what was asked for.
        source: its frames.
        latest: its last tagged frame; None before the first.
        tagged: number of its tagged frames.
        history: its scores of the last hour.
        packets: its last seconds as packets; None without clips.
    """

    config: CameraConfig
    source: CameraSource
    latest: Moment | None = None
    tagged: int = 0
    history: ScoreHistory = field(default_factory=ScoreHistory)
    packets: PacketRing | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return self.config.id


class Site(Closing):
    """Runs all cameras through one tagger in a thread, and keeps the events.

    Attributes:
        config: what was asked for.
        tagger: tags the frames.
        store: keeps the events.
        cameras: by id.
        stream: the running stream, with its profile.
        zones, rules: of the cameras.
        rule_sinks: rule → what is told when it fires, beside the page.
        listeners: called with each moment in the tagging thread; they must be quick.
        failure: the error that ended the tagging; None while it runs.
    """

    def __init__(
        self, config: SiteConfig, tagger: Tagger, store: EventStore, sinks: list[Sink]
    ) -> None:
        """Prepare the cameras; nothing is opened yet.

        Args:
            config: what was asked for.
            tagger: tags the frames.
            store: keeps the events.
            sinks: receive every moment.
        Raises:
            InputError: the bundle was exported with `--top-k`, or an option of a camera is wrong.
        """
        refuse_top(tagger.bundle.manifest.graph.top_k, config.bundle, "serving")
        self.config, self.tagger, self.store = config, tagger, store
        colours = tagger.bundle.manifest.input.source_colours
        self.cameras = {camera.id: _camera(camera, config, colours) for camera in config.cameras}
        self.merged = MergedSource([camera.source for camera in self.cameras.values()])
        settings = StreamSettings(
            batch=config.batch_size,
            smoothing_s=config.smoothing,
            min_on_s=config.min_on,
            min_off_s=config.min_off,
            keep_events=False,
            skip_still=config.skip_still,
        )
        self.stream = Stream(tagger, self.merged, settings)
        self.zones = [Zone(zone, tagger, settings) for zone in config.zones]
        self.rules = [Rule(rule) for rule in config.rules]
        self.rule_sinks: dict[str, list[BackgroundSender]] = {}
        self.listeners: list[Listener] = []
        self.failure: Exception | None = None
        self.ended = threading.Event()
        self._sinks = sinks
        self._stopping = False
        self._saved_s = self._last_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True, name="tagging")

    def start(self) -> None:
        """Load the states of the last run, and begin to tag."""
        machines = {zone.source: zone.machine for zone in self.zones}
        machines |= {camera: self.stream.machine(camera) for camera in self.cameras}
        for source, (at, state) in self.store.states().items():
            if source in machines:
                try:
                    machines[source].load_state(rebase_state(state, max(time.time() - at, 0.0)))
                except InputError as error:
                    _LOG.warning("%s: the state of its tags cannot be used: %s", source, error)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether frames are tagged, or no camera has given one yet that could be."""
        if self.failure is not None or self.ended.is_set():
            return False
        delivered = [camera.source.status.last_s for camera in self.cameras.values()]
        newest = max((seconds for seconds in delivered if seconds is not None), default=None)
        return newest is None or newest - self._last_s < _STUCK_S

    def dropped(self, camera: str) -> int:
        """Frames of a camera that were skipped because newer ones had arrived."""
        return self.merged.dropped_by_source.get(camera, 0)

    def keep_clip(self, event: StoredEvent) -> None:
        """Ask for the clip of an event that went on; called with each event that is stored."""
        ring = self.cameras[event.camera].packets
        if ring is not None and event.id and event.kind != "off":
            at_s = time.monotonic() - (time.time() - event.at)
            ring.wish(at_s, functools.partial(self.store.put_clip, event.id))

    def close(self) -> None:
        """Stop the cameras and the tagging."""
        self._stopping = True
        for camera in self.cameras.values():
            camera.source.close()
        self.stream.close()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _run(self) -> None:
        try:
            for moment in self.stream:
                self._handle(moment)
            if not self._stopping:
                raise InputError("every camera has ended")
        except Exception as error:  # the process ends with it
            self.failure = error
        finally:
            self._save()
            self.ended.set()

    def _handle(self, moment: Moment) -> None:
        camera = self.cameras[moment.frame.source]
        camera.latest = moment
        camera.tagged += 1
        self._last_s = time.monotonic()
        time_s = moment.time or 0.0
        if camera.history.wants(time_s):
            machine = self.stream.machine(camera.id)
            camera.history.add(time_s, machine.names, machine.smoothed)
        events = self._new_events(camera, moment)
        if events:
            self.store.put(events, self._states())
        elif self._last_s - self._saved_s >= _STATE_S:
            self._save()
        for listener in self.listeners:
            listener(camera, moment)
        for sink in self._sinks:
            sink.write(moment)

    def _new_events(self, camera: Camera, moment: Moment) -> list[NewEvent]:
        """The events of a moment, those of its zones, and the rules that fire."""
        picture = functools.cache(functools.partial(_picture, moment.frame))
        found = [_new_event(event, moment, "", picture) for event in moment.events]
        zones = [zone for zone in self.zones if zone.config.camera == camera.id]
        seen = {"": moment.on}
        for zone in zones:
            try:
                events = zone.update(moment)
            except InputError as error:
                _LOG.warning("%s; the zone is left out", error)
                self.zones.remove(zone)
                continue
            found += [_new_event(event, moment, zone.config.id, picture) for event in events]
            seen[zone.config.id] = zone.on
        for rule in self.rules:
            place = rule.config.zone or ""
            concerned = place in seen and rule.concerns(camera.id, place)
            if concerned and rule.fires(camera.id, moment.time or 0.0, seen[place]):
                now = time.time()
                found.append(
                    NewEvent(now, now, camera.id, place, rule.config.id, "rule", picture=picture)
                )
                for sender in self.rule_sinks.get(rule.config.id, ()):
                    sender.put(rule_record(rule.config, camera.id, now))
        return found

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        self.store.put((), self._states())

    def _states(self) -> dict[str, dict[str, object]]:
        states = {
            source: self.stream.machine(source).save_state() for source in self.stream.sources
        }
        return states | {zone.source: zone.machine.save_state() for zone in self.zones}


def _camera(camera: CameraConfig, config: SiteConfig, colours: tuple[str, str] | None) -> Camera:
    ring = None if config.clips is None else PacketRing(config.clips)
    options = SourceOptions(
        max_fps=camera.max_fps or config.max_fps,
        roi=parse_roi(camera.roi),
        colours=colours,
        on_packet=None if ring is None else ring.take,
    )
    return Camera(camera, CameraSource(camera.id, camera.source, options), packets=ring)


def _new_event(event: Event, moment: Moment, zone: str, picture: Callable[[], bytes]) -> NewEvent:
    """An event by the clock on the wall."""
    now, time_s = time.time(), moment.time or 0.0
    return NewEvent(
        at=now - (time_s - event.time_s),
        decided_at=now - (time_s - event.decided_s),
        camera=moment.frame.source,
        zone=zone,
        tag=event.tag,
        kind=event.kind,
        score=event.score,
        peak=event.peak,
        picture=picture if event.kind == "on" else None,
    )


def _picture(frame: Frame) -> bytes:
    return jpeg(rgb_image(frame.picture), _PICTURE_WIDTH)

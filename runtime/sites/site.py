"""All cameras of a site: what is seen now, and what is kept."""

from __future__ import annotations

import difflib
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence

from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Event, rebase_state
from taidpt.runtime.painting.drawing import jpeg, rgb_image
from taidpt.runtime.sinks.background import BackgroundSender
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sites.camera_group import Camera, CameraGroup
from taidpt.runtime.sites.config import SiteConfig
from taidpt.runtime.sites.rules import Rule, rule_record
from taidpt.runtime.sites.store import EventStore, NewEvent, StoredEvent
from taidpt.runtime.sources.base import Frame
from taidpt.runtime.stream.moment import Moment

__all__ = ["Camera", "CameraGroup", "Site"]

_LOG = logging.getLogger("taidpt.runtime")

# Width of the picture that is kept with an event, in pixels: enough to see who or what it was.
_PICTURE_WIDTH = 640
# States of tags are saved once a second, and those of a camera with its events.
_STATE_S = 1.0

Listener = Callable[[Camera, Moment], None]


class Site(Closing):
    """Runs all cameras, those of each bundle in a thread, and keeps the events.

    Attributes:
        config: what was asked for.
        groups: the cameras of each bundle, by the bundle's id.
        store: keeps the events.
        cameras: by id.
        rules: of the cameras.
        rule_sinks: rule → what is told when it fires, beside the page.
        listeners: called with each moment, one after another; they must be quick.
        failure: the error that ended the tagging; None while it runs.
    """

    def __init__(
        self,
        config: SiteConfig,
        groups: Sequence[CameraGroup],
        store: EventStore,
        sinks: list[Sink],
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            config: what was asked for.
            groups: the cameras of each bundle.
            store: keeps the events.
            sinks: receive every moment.
        """
        self.config, self.store = config, store
        self.groups = {group.config.id: group for group in groups}
        found = {name: camera for group in groups for name, camera in group.cameras.items()}
        self.cameras = {camera.id: found[camera.id] for camera in config.cameras}
        self.rules = [Rule(rule) for rule in config.rules]
        self.rule_sinks: dict[str, list[BackgroundSender]] = {}
        self.listeners: list[Listener] = []
        self.failure: Exception | None = None
        self.ended = threading.Event()
        self._sinks = sinks
        self._handling = threading.Lock()
        self._saved_s: dict[str, float] = {}  # by group

    def start(self) -> None:
        """Load the states of the last run, and begin to tag."""
        self._warn_of_unknown_tags()
        machines = {
            source: machine
            for group in self.groups.values()
            for source, machine in group.machines(group.cameras.values()).items()
        }
        for source, (at, state) in self.store.states().items():
            if source in machines:
                try:
                    machines[source].load_state(rebase_state(state, max(time.time() - at, 0.0)))
                except InputError as error:
                    _LOG.warning("%s: the state of its tags cannot be used: %s", source, error)
        for group in self.groups.values():
            group.start(functools.partial(self._handle, group), functools.partial(self._end, group))

    def _warn_of_unknown_tags(self) -> None:
        """A rule may name a tag that will be added later, or one that is misspelt."""
        for rule in self.config.rules:
            cameras = [rule.camera] if rule.camera else self.cameras
            groups = {self.cameras[name].bundle for name in cameras}
            known = {name for group in groups for name in self.groups[group].tagger.names}
            for tag in (rule.tag, *rule.without):
                if tag not in known:
                    close = difflib.get_close_matches(tag, known, n=1)
                    hint = f"; did you mean {close[0]}?" if close else ""
                    _LOG.warning("rule %s: there is no tag %r%s", rule.id, tag, hint)

    @property
    def ready(self) -> bool:
        """Whether frames are tagged, or no camera has given one yet that could be."""
        if self.failure is not None or self.ended.is_set():
            return False
        return not any(group.is_stuck for group in self.groups.values())

    def group_of(self, camera: Camera) -> CameraGroup:
        """The group of a camera."""
        return self.groups[camera.bundle]

    def keep_clip(self, event: StoredEvent) -> None:
        """Ask for the clip of an event that went on; called with each event that is stored."""
        ring = self.cameras[event.camera].packets
        if ring is not None and event.id and event.kind != "off":
            at_s = time.monotonic() - (time.time() - event.at)
            ring.wish(at_s, functools.partial(self.store.put_clip, event.id))

    def close(self) -> None:
        """Stop the cameras and the tagging."""
        for group in self.groups.values():
            group.close()

    def _handle(self, group: CameraGroup, camera: Camera, moment: Moment) -> None:
        with self._handling:
            time_s = moment.time or 0.0
            if camera.history.wants(time_s):
                machine = group.stream.machine(camera.id)
                camera.history.add(time_s, machine.names, machine.smoothed)
            self._keep(group, [camera], self._new_events(camera, moment))
            for listener in self.listeners:
                listener(camera, moment)
            for sink in self._sinks:
                sink.write(moment)

    def _end(self, group: CameraGroup, failure: Exception | None) -> None:
        self.failure = self.failure or failure
        self._saved_s.clear()
        self._keep(group, [], [])
        self.ended.set()

    def _keep(
        self, group: CameraGroup, cameras: Sequence[Camera], events: Sequence[NewEvent]
    ) -> None:
        """Store events of cameras with the states that they led to; in the group's thread."""
        now = time.monotonic()
        is_due = now - self._saved_s.get(group.config.id, -_STATE_S) >= _STATE_S
        if is_due:
            self._saved_s[group.config.id] = now
        if events or is_due:
            machines = group.machines(group.cameras.values() if is_due else cameras)
            states = {name: machine.save_state() for name, machine in machines.items()}
            self.store.put(events, states)

    def _new_events(self, camera: Camera, moment: Moment) -> list[NewEvent]:
        """The events of a moment, those of its zones, and the rules that fire."""
        picture = functools.cache(functools.partial(_picture, moment.frame))
        found = [_new_event(event, moment, "", picture) for event in moment.events]
        seen = {"": moment.on}
        for zone in tuple(camera.zones):
            try:
                events = zone.update(moment)
            except InputError as error:
                _LOG.warning("%s; the zone is left out", error)
                camera.zones.remove(zone)
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

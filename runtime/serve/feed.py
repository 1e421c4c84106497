"""Server-sent events: the tags of the cameras as they change, and every event, resumable."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from taidpt.runtime.sites.site import Camera, Site
from taidpt.runtime.sites.store import EventQuery, StoredEvent
from taidpt.runtime.stream.moment import Moment

__all__ = ["Feed", "tags_of"]

# Tags of a camera are sent at most so often, in seconds: as fast as an eye follows bars.
_PERIOD_S = 0.2
# Tags in one message: more bars than a screen shows.
_MOST_TAGS = 40
# Events that wait for a slow client, and that are replayed to one that comes back.
_MOST_EVENTS = 1000
# A comment so often shows a dead connection to both sides, in seconds.
_HEARTBEAT_S = 15.0


def tags_of(camera: Camera, moment: Moment, most: int) -> dict[str, Any]:
    """The best tags of a moment, and all that are on, as JSON values."""
    vocabulary, on = moment.result.vocabulary, set(moment.on)
    best = moment.result.top(most)
    shown = {tag.name for tag in best}
    rest = tuple(moment.result[name] for name in moment.on if name not in shown)
    return {
        "camera": camera.id,
        "tags": [
            {
                "name": tag.name,
                "score": tag.score,
                "on": tag.name in on,
                "probability": tag.probability,
                "threshold": float(vocabulary.on[vocabulary.index(tag.name)]),
            }
            for tag in (*best, *rest)
        ],
        "zones": [{"id": zone.config.id, "on": list(zone.on)} for zone in tuple(camera.zones)],
    }


class _Client:
    """What waits for one client: the newest tags of each camera, and events in order."""

    def __init__(self) -> None:
        self.tags: dict[str, bytes] = {}
        self.others: deque[bytes] = deque(maxlen=_MOST_EVENTS)
        self.arrived = asyncio.Event()
        self.last_id = 0


class Feed:
    """Sends tags and events to any number of clients; a slow one misses tags, not events."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._clients: set[_Client] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sent_s: dict[str, float] = {}
        self._closed = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to take what other threads offer."""
        self._loop = loop

    def on_moment(self, camera: Camera, moment: Moment) -> None:
        """Take a moment, if anybody listens; called in the tagging thread."""
        now = time.monotonic()
        if not self._clients or now - self._sent_s.get(camera.id, 0.0) < _PERIOD_S:
            return
        self._sent_s[camera.id] = now
        self._call(self._publish_tags, camera, moment)

    def on_event(self, event: StoredEvent) -> None:
        """Take an event that is stored; called in the store's thread."""
        if self._clients:
            self._call(self._publish, "event", event.to_dict(), event.id)

    def announce(self, name: str, document: dict[str, Any]) -> None:
        """Send anything else to every client; any thread may call this."""
        self._call(self._publish, name, document, 0)

    async def parts(self, last_id: int | None) -> AsyncIterator[bytes]:
        """The stream for one client.

        Args:
            last_id: number of the last event that the client has; None: only new ones.
        """
        client = _Client()
        self._clients.add(client)
        try:
            yield b"retry: 2000\n\n"
            if last_id is not None:
                query = EventQuery(after=last_id, oldest_first=True, limit=_MOST_EVENTS)
                for event in await asyncio.to_thread(self._site.store.events, query):
                    client.last_id = event.id
                    yield _message("event", event.to_dict(), event.id)
            while not self._closed:
                try:
                    await asyncio.wait_for(client.arrived.wait(), _HEARTBEAT_S)
                except asyncio.TimeoutError:
                    yield b": still here\n\n"
                client.arrived.clear()
                while client.others:
                    yield client.others.popleft()
                while client.tags:
                    yield client.tags.pop(next(iter(client.tags)))
        finally:
            self._clients.discard(client)

    def close(self) -> None:
        """End all streams; called on the event loop."""
        self._closed = True
        for client in self._clients:
            client.arrived.set()

    def _call(self, function: Any, *values: Any) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(function, *values)

    def _publish_tags(self, camera: Camera, moment: Moment) -> None:
        data = _message("tags", tags_of(camera, moment, _MOST_TAGS))
        for client in self._clients:
            client.tags[camera.id] = data
            client.arrived.set()

    def _publish(self, name: str, document: dict[str, Any], number: int) -> None:
        data = _message(name, document, number)
        for client in self._clients:
            if not number or number > client.last_id:  # not replayed already
                client.others.append(data)
                client.arrived.set()


def _message(name: str, document: dict[str, Any], number: int = 0) -> bytes:
    head = f"id: {number}\n" if number else ""
    return f"{head}event: {name}\ndata: {json.dumps(document, ensure_ascii=True)}\n\n".encode()

"""Home Assistant by MQTT discovery: entities of each camera and tag, their states, availability.

One device a camera: a binary sensor a tag, a sensor of all scores, and the picture of the last
event. Discovery and states are retained, so both sides may restart in any order; what was retained
for tags that are gone, also by an earlier run, is removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

from taidpt import __version__
from taidpt.runtime.closing import Closing
from taidpt.runtime.sinks.mqtt import BrokerAddress
from taidpt.runtime.sites.config import HomeAssistantConfig
from taidpt.runtime.sites.site import Camera, Site
from taidpt.runtime.sites.store import StoredEvent
from taidpt.runtime.stream.moment import Moment

__all__ = ["HomeAssistant"]

_LOG = logging.getLogger("taidpt.runtime")
# Scores are published so often, in seconds: Home Assistant records every change of a state.
_SCORES_S = 5.0
# Pauses between tries to reach the broker, in seconds, and messages that wait meanwhile.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _MOST_WAITING = 1, 30, 1000
_NOT_IN_TOPICS = re.compile(r"[^A-Za-z0-9_-]+")


class HomeAssistant(Closing):
    """Keeps a broker informed; the site never waits for it."""

    def __init__(self, config: HomeAssistantConfig, site: Site) -> None:
        """Begin to connect, in the background.

        Raises:
            InputError: the address is wrong.
            MissingDependencyError: paho-mqtt is not installed.
        """
        address = BrokerAddress(config.mqtt, "home_assistant")
        self._config, self._site = config, site
        self._node = config.topic.replace("/", "_")
        self._connected = False
        self._published: set[str] = set()  # discovery topics
        self._names: dict[str, tuple[str, ...]] = {}  # by camera
        self._scores_s: dict[str, float] = {}
        self._up: dict[str, bool] = {}
        self._lock = threading.RLock()
        client = self._client = address.new_client()
        client.will_set(self._topic("availability"), "offline", qos=1, retain=True)
        client.reconnect_delay_set(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        client.max_queued_messages_set(_MOST_WAITING)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        site.listeners.append(self._on_moment)
        client.connect_async(address.host, address.port)
        client.loop_start()

    def on_event(self, event: StoredEvent) -> None:
        """Publish the picture of an event; called in the store's thread."""
        if self._connected and event.has_picture:
            picture = self._site.store.picture(event.id)
            self._publish(self._topic(event.camera, "picture"), picture)

    def close(self) -> None:
        """Say that the entities are unavailable, and disconnect."""
        with contextlib.suppress(Exception):  # the connection is given up in any case
            if self._connected:
                message = self._client.publish(self._topic("availability"), "offline", 1, True)
                message.wait_for_publish(2.0)
            self._client.disconnect()
            self._client.loop_stop()

    def _on_connect(self, client: Any, *_: Any) -> None:
        _LOG.info("home_assistant: connected")
        self._connected = True
        client.subscribe(f"{self._config.prefix}/status")
        # what earlier runs have retained comes as messages, and is removed if it is not ours now
        client.subscribe(f"{self._config.prefix}/+/{self._node}/+/config")
        with self._lock:
            self._publish_all()

    def _on_disconnect(self, *_: Any) -> None:
        if self._connected:
            _LOG.warning("home_assistant: the broker is away; trying again")
        self._connected = False

    def _on_message(self, client: Any, _: Any, message: Any) -> None:
        with self._lock:
            if message.topic == f"{self._config.prefix}/status":
                if message.payload == b"online":  # Home Assistant has started anew
                    self._publish_all()
            elif message.payload and message.topic not in self._published:
                self._publish(message.topic, b"")

    def _on_moment(self, camera: Camera, moment: Moment) -> None:
        """Publish what changed; called in the tagging thread."""
        if not self._connected:
            return
        if moment.result.vocabulary.names != self._names.get(camera.id):
            with self._lock:
                self._publish_all()
        for event in moment.events:
            if event.tag in self._names[camera.id]:
                self._publish_state(camera.id, event.tag, event.kind == "on")
        now = time.monotonic()
        if now - self._scores_s.get(camera.id, -_SCORES_S) >= _SCORES_S:
            self._scores_s[camera.id] = now
            self._publish_scores(camera.id, moment)
            for other in self._site.cameras.values():
                self._publish_camera(other)

    def _publish_all(self) -> None:
        self._names = {
            camera.id: self._site.group_of(camera).tagger.names
            for camera in self._site.cameras.values()
        }
        entities = dict(self._entities())
        for topic in self._published - set(entities):
            self._publish(topic, b"")
        self._published = set(entities)
        self._publish(self._topic("availability"), "online")
        self._up.clear()
        for topic, entity in entities.items():
            self._publish(topic, json.dumps(entity, ensure_ascii=False))
        for camera in self._site.cameras.values():
            self._publish_camera(camera)
            on = camera.latest.on if camera.latest is not None else ()
            for name in self._names[camera.id]:
                self._publish_state(camera.id, name, name in on)

    def _publish_camera(self, camera: Camera) -> None:
        is_up = camera.source.status.state == "running"
        if self._up.get(camera.id) != is_up:
            self._up[camera.id] = is_up
            word = "online" if is_up else "offline"
            self._publish(self._topic(camera.id, "availability"), word)

    def _publish_state(self, camera: str, tag: str, is_on: bool) -> None:
        self._publish(self._topic(camera, _slug(tag), "state"), "ON" if is_on else "OFF")

    def _publish_scores(self, camera: str, moment: Moment) -> None:
        pairs = zip(moment.result.vocabulary.names, moment.result.scores.tolist(), strict=True)
        scores = {name: round(score, 3) for name, score in pairs}
        self._publish(self._topic(camera, "on"), str(len(moment.on)))
        self._publish(self._topic(camera, "scores"), json.dumps(scores, ensure_ascii=False))

    def _entities(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Discovery topic and content of each entity."""
        for camera in self._site.cameras:
            for name in self._names[camera]:
                slug = _slug(name)
                state = {"state_topic": self._topic(camera, slug, "state")}
                yield self._entity("binary_sensor", camera, slug, name, state)
            scores = {
                "state_topic": self._topic(camera, "on"),
                "json_attributes_topic": self._topic(camera, "scores"),
                "unit_of_measurement": "tags",
                "state_class": "measurement",
                "icon": "mdi:tag-multiple",
            }
            yield self._entity("sensor", camera, "taidpt_scores", "Tags on", scores)
            picture = {"image_topic": self._topic(camera, "picture"), "content_type": "image/jpeg"}
            yield self._entity("image", camera, "taidpt_picture", "Last event", picture)

    def _entity(
        self, component: str, camera: str, slug: str, name: str, more: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        own_id = f"{self._node}_{camera}_{slug}"
        tagger = self._site.group_of(self._site.cameras[camera]).tagger
        entity = {
            "name": name,
            "unique_id": own_id,
            **more,
            "availability": [
                {"topic": self._topic("availability")},
                {"topic": self._topic(camera, "availability")},
            ],
            "availability_mode": "all",
            "device": {
                "identifiers": [f"{self._node}_{camera}"],
                "name": camera,
                "manufacturer": "taidpt",
                "model": tagger.bundle.path.name,
                "sw_version": __version__,
            },
            "origin": {"name": "taidpt", "sw_version": __version__},
        }
        return f"{self._config.prefix}/{component}/{self._node}/{camera}_{slug}/config", entity

    def _topic(self, *parts: str) -> str:
        return "/".join((self._config.topic, *parts))

    def _publish(self, topic: str, payload: str | bytes | None) -> None:
        self._client.publish(topic, payload, qos=1, retain=True)


def _slug(name: str) -> str:
    """A tag's name in topics and ids; names that are written alike stay apart."""
    plain = _NOT_IN_TOPICS.sub("_", name)
    if plain == name:
        return name
    return f"{plain}_{hashlib.sha256(name.encode('utf-8', 'backslashreplace')).hexdigest()[:6]}"

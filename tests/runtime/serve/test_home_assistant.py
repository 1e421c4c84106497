"""Home Assistant's side of a real broker: discovery, states, pictures, availability, removal."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from PIL import Image

from taidpt.runtime.errors import InputError
from taidpt.runtime.sites.config import HomeAssistantConfig
from tests.runtime.serve.server import running
from tests.runtime.sinks.senders import free_port, wait_for
from tests.runtime.sinks.test_mqtt import broker, require_paho
from tests.runtime.tiny import NAMES

TOPIC = {"type": "string", "pattern": "^[^+#]+$"}
TEXT = {"type": "string", "minLength": 1}
# What homeassistant/components/mqtt (schemas.py, entity.py, binary_sensor.py, sensor.py, image.py)
# takes in a discovery message, of the keys that taidpt sends.
COMMON = {
    "name": TEXT,
    "unique_id": TEXT,
    "availability": {
        "type": "array",
        "items": {"type": "object", "properties": {"topic": TOPIC}, "required": ["topic"]},
    },
    "availability_mode": {"enum": ["all", "any", "latest"]},
    "device": {
        "type": "object",
        "properties": {
            "identifiers": {"type": "array", "items": TEXT, "minItems": 1},
            **dict.fromkeys(("name", "manufacturer", "model", "sw_version"), TEXT),
        },
        "required": ["identifiers"],
        "additionalProperties": False,
    },
    "origin": {
        "type": "object",
        "properties": {"name": TEXT, "sw_version": TEXT, "support_url": TEXT},
        "required": ["name"],
        "additionalProperties": False,
    },
}
OWN = {
    "binary_sensor": ({"state_topic": TOPIC}, ["state_topic"]),
    "sensor": (
        {
            "state_topic": TOPIC,
            "json_attributes_topic": TOPIC,
            "unit_of_measurement": TEXT,
            "state_class": {"enum": ["measurement", "total", "total_increasing"]},
            "icon": {"type": "string", "pattern": "^mdi:"},
        },
        ["state_topic"],
    ),
    "image": ({"image_topic": TOPIC, "content_type": {"const": "image/jpeg"}}, ["image_topic"]),
}


class House:
    """What a broker has retained, as Home Assistant would see it."""

    def __init__(self, port: int) -> None:
        import paho.mqtt.client as paho

        self.topics: dict[str, bytes] = {}
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_message = self._take
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        assert wait_for(lambda: self._connects(port))
        self.client.loop_start()

    def _connects(self, port: int) -> bool:
        with contextlib.suppress(OSError):
            return self.client.connect("127.0.0.1", port) == 0
        return False

    def _take(self, _client: object, _data: object, message: object) -> None:
        if message.payload:
            self.topics[message.topic] = message.payload
        else:
            self.topics.pop(message.topic, None)

    @property
    def entities(self) -> dict[str, dict[str, object]]:
        """Discovery topic → entity."""
        return {
            topic: json.loads(payload)
            for topic, payload in dict(self.topics).items()
            if topic.startswith("homeassistant/")
        }

    def state(self, topic: str) -> str:
        return self.topics.get(topic, b"").decode()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    require_paho()
    port = free_port()
    with broker(port, tmp_path):
        yield port


def test_entities_follow_the_discovery_schema_and_the_tags(
    port: int, swappable: Path, video_path: Path, tmp_path: Path
) -> None:
    house = House(port)
    config = HomeAssistantConfig(f"mqtt://127.0.0.1:{port}", topic="home/taidpt")
    options = {"home_assistant": config, "max_fps": 10.0, "min_on": 0.0}
    with running(swappable, tmp_path / "data", str(video_path), **options) as server:
        assert wait_for(lambda: len(house.entities) == len(NAMES) + 2)
        ids = set()
        for topic, entity in house.entities.items():
            properties, required = OWN[topic.split("/")[1]]
            schema = {
                "type": "object",
                "properties": {**COMMON, **properties},
                "required": [*COMMON, *required],
                "additionalProperties": False,
            }
            jsonschema.validate(entity, schema)
            ids.add(entity["unique_id"])
            assert entity["device"]["name"] == "cam1"
            for place in entity["availability"]:
                assert wait_for(lambda at=place["topic"]: house.state(at) == "online")
        assert len(ids) == len(NAMES) + 2
        names = {entity["name"]: entity for entity in house.entities.values()}
        assert set(NAMES) < set(names)
        for tag in ("dog", "traffic light", "café"):
            state = names[tag]["state_topic"]
            edit = {"on": -9.0}
            server.ask(f"/v1/tags?tag={quoted(tag)}", "PATCH", edit)
            assert wait_for(lambda at=state: house.state(at) == "ON")
        server.ask("/v1/tags?tag=dog", "PATCH", {"on": 9.0})
        assert wait_for(lambda: house.state(names["dog"]["state_topic"]) == "OFF")
        picture = names["Last event"]["image_topic"]
        assert wait_for(lambda: picture in house.topics)
        assert Image.open(io.BytesIO(house.topics[picture])).size == (128, 96)
        scores = names["Tags on"]["json_attributes_topic"]
        assert wait_for(lambda: scores in house.topics)
        assert set(json.loads(house.topics[scores])) == set(NAMES)
        server.ask("/v1/tags?tag=dog", "DELETE")
        assert wait_for(lambda: len(house.entities) == len(NAMES) + 1)
        assert "dog" not in {entity["name"] for entity in house.entities.values()}
    assert wait_for(lambda: house.state("home/taidpt/availability") == "offline")
    house.client.loop_stop()


def test_what_an_earlier_run_left_is_removed_and_a_birth_is_answered(
    port: int, swappable: Path, video_path: Path, tmp_path: Path
) -> None:
    house = House(port)
    old = "homeassistant/binary_sensor/taidpt/cam1_unicorn/config"
    foreign = "homeassistant/binary_sensor/other/cam1_unicorn/config"
    for topic in (old, foreign):
        house.client.publish(topic, b'{"name": "unicorn"}', 1, True)
    config = HomeAssistantConfig(f"mqtt://127.0.0.1:{port}")
    options = {"home_assistant": config}
    with running(swappable, tmp_path / "data", str(video_path), **options):
        assert wait_for(lambda: old not in house.topics)
        assert foreign in house.topics
        known = "homeassistant/binary_sensor/taidpt/cam1_dog/config"
        assert wait_for(lambda: known in house.topics)
        house.topics.clear()
        house.client.publish("homeassistant/status", b"online")
        assert wait_for(lambda: known in house.topics)
    house.client.loop_stop()


def test_a_broker_that_is_away_delays_nothing_and_is_found_later(
    swappable: Path, video_path: Path, tmp_path: Path
) -> None:
    require_paho()
    port = free_port()
    config = HomeAssistantConfig(f"mqtt://127.0.0.1:{port}")
    with running(swappable, tmp_path / "data", str(video_path), home_assistant=config) as server:
        tagged = server.site.cameras["cam1"].tagged
        assert wait_for(lambda: server.site.cameras["cam1"].tagged > tagged + 2)
        with broker(port, tmp_path):
            house = House(port)
            assert wait_for(lambda: house.state("taidpt/availability") == "online", 40)
            house.client.loop_stop()


@pytest.mark.parametrize(
    "fields",
    [{"mqtt": "mqtt://b", "prefix": "a/+/b"}, {"mqtt": "mqtt://b", "topic": ""}],
)
def test_a_topic_that_cannot_be_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(InputError, match="should be a topic"):
        HomeAssistantConfig(**fields)


def quoted(tag: str) -> str:
    from urllib.parse import quote

    return quote(tag)

"""MQTT against a real broker, which is away at first."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sinks.mqtt import open_mqtt
from taidpt.runtime.stream.moment import Moment
from tests.runtime.sinks.senders import QUICK, events_of, free_port, wait_for
from tests.support import require


def require_paho() -> None:
    found = importlib.util.find_spec("paho") is not None
    require("paho-mqtt", found, "paho-mqtt is not installed (pip install paho-mqtt)")


@contextlib.contextmanager
def broker(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real Mosquitto on loopback."""
    paths = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    program = shutil.which("mosquitto", path=paths)
    require("mosquitto", program is not None, "mosquitto is not installed (apt install mosquitto)")
    assert program is not None
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n"
        f"persistence true\npersistence_location {folder}/\n"
    )
    child = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.terminate()
        child.wait()


@contextlib.contextmanager
def subscriber(port: int) -> Iterator[list[dict[str, Any]]]:
    """A client that the broker remembers, and keeps messages for, while it is away."""
    import paho.mqtt.client as paho

    records: list[dict[str, Any]] = []
    subscribed = threading.Event()
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2, client_id="the-test", clean_session=False
    )
    client.on_message = lambda _c, _u, message: records.append(json.loads(message.payload))
    client.on_connect = lambda c, *_: c.subscribe("site/tags", qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    for _ in range(200):
        try:
            client.connect("127.0.0.1", port)
            break
        except OSError:
            time.sleep(0.1)
    client.loop_start()
    try:
        assert subscribed.wait(20)
        yield records
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize(
    "url",
    [
        "http://x",
        "mqtt://h:abc/x",
        "mqtt://h:0/x",
        "mqtt://h:70000",
        "mqtt://[::1",
        "mqtt:///topic",
        "mqtt://h/site/+/events",
        "mqtt://h/site/#",
        "mqtt://h/site/%23",
        "mqtts://h/%2B",
        "mqtt://h/a%00b",
        "mqtt://h/%ff",
        "mqtt://h/" + "t" * 70_000,
        "mqtt://me:a?b@h/x",
    ],
)
def test_an_address_that_is_not_mqtt_is_refused(url: str) -> None:
    require_paho()
    with pytest.raises(InputError, match=r"expected mqtt://") as error:
        open_mqtt(url)
    assert len(str(error.value).splitlines()) == 1


def test_mqtt_events_arrive_also_those_made_while_the_broker_was_away(
    moments: list[Moment], tmp_path: Path
) -> None:
    require_paho()
    port = free_port()
    with broker(port, tmp_path), subscriber(port):
        pass  # from now on the broker keeps what comes for this client
    sink = open_mqtt(f"mqtt://127.0.0.1:{port}/site/tags", QUICK)
    expected = events_of(moments)
    half = len(moments) // 2
    for moment in moments[:half]:
        sink.write(moment)
    time.sleep(0.3)
    assert sink.sender.sent == 0
    with broker(port, tmp_path), subscriber(port) as records:
        for moment in moments[half:]:
            sink.write(moment)
        assert wait_for(lambda: len(records) >= len(expected))
        sink.close()
    assert [(r["tag"], r["kind"], r["time_s"]) for r in records] == expected
    assert sink.sender.lost == 0

"""Webhooks and MQTT against real receivers, slow ones and absent ones."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sinks.background import BackgroundSender, SendPolicy
from taidpt.runtime.sinks.mqtt import open_mqtt
from taidpt.runtime.sinks.webhook import open_webhook
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.support import require

QUICK = SendPolicy(first_pause_s=0.05, longest_pause_s=0.1, drain_s=5.0)


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory, video_path: Path) -> list[Moment]:
    path = tmp_path_factory.mktemp("l") / "lively.taidpt"
    with Tagger.load(tiny_bundle(path, TinySpec(thresholds=(1.0,))), device="cpu") as tagger:
        return list(tagger.stream(video_path))


def events_of(moments: list[Moment]) -> list[tuple[str, str, float]]:
    return [(e.tag, e.kind, e.time_s) for moment in moments for e in moment.events]


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted; fails the first `failing` posts."""

    def __init__(self, port: int = 0, failing: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.records: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.failing = failing
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.failing -= 1
        if self.server.failing < 0:  # kept before the answer, after which the next post may come
            self.server.records.append(json.loads(data))
            self.server.headers.append(dict(self.headers))
        self.send_response(500 if self.server.failing >= 0 else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_a_webhook_gets_every_event_in_order_over_failures(moments: list[Moment]) -> None:
    receiver = Receiver(failing=3)
    sink = open_webhook(f"http://me:s%40cret@127.0.0.1:{receiver.server_port}/hook?a=1", QUICK)
    for moment in moments:
        sink.write(moment)
    sink.close()
    receiver.shutdown()
    got = [(r["tag"], r["kind"], r["time_s"]) for r in receiver.records]
    assert got == events_of(moments)
    assert len(got) >= 2
    assert (sink.sender.sent, sink.sender.lost, sink.sender.failures) == (len(got), 0, 3)
    assert receiver.records[0]["schema"] == "taidpt-event/1"
    assert receiver.headers[0]["Authorization"] == "Basic bWU6c0BjcmV0"


def test_an_absent_receiver_stalls_nothing_and_is_named_without_its_password(
    moments: list[Moment], caplog: pytest.LogCaptureFixture
) -> None:
    policy = SendPolicy(most_waiting=1, first_pause_s=0.05, drain_s=0.3)
    with caplog.at_level(logging.WARNING, "taidpt.runtime"):
        sink = open_webhook(f"http://me:hunter2@127.0.0.1:{free_port()}/hook", policy)
        begun = time.monotonic()
        for moment in moments:
            sink.write(moment)
        assert time.monotonic() - begun < 1.0
        sink.close()
    assert sink.sender.sent == 0
    assert sink.sender.lost == len(events_of(moments))
    assert "lost" in caplog.text
    assert "hunter2" not in caplog.text


def test_records_wait_for_a_receiver_that_comes_back() -> None:
    arrived: list[int] = []
    away = threading.Event()

    def send(record: dict[str, Any]) -> None:
        if not away.is_set():
            raise OSError("away")
        arrived.append(record["n"])

    sender = BackgroundSender("test", send, QUICK)
    for number in range(50):
        sender.put({"n": number})
    time.sleep(0.2)
    assert arrived == []
    away.set()
    assert wait_for(lambda: len(arrived) == 50)
    sender.close()
    assert arrived == list(range(50))
    assert sender.lost == 0


def test_wrong_addresses() -> None:
    with pytest.raises(InputError, match=r"http:// or https://"):
        open_webhook("ftp://x/y")
    require_paho()
    with pytest.raises(InputError, match=r"expected mqtt://host"):
        open_mqtt("http://x")


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

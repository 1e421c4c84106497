"""Webhooks against a real receiver, a failing one and an absent one."""

from __future__ import annotations

import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sinks.background import SendPolicy
from taidpt.runtime.sinks.webhook import open_webhook
from taidpt.runtime.stream.moment import Moment
from tests.runtime.sinks.senders import QUICK, events_of, free_port


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


def test_an_address_that_is_not_http_is_refused() -> None:
    with pytest.raises(InputError, match=r"http:// or https://"):
        open_webhook("ftp://x/y")

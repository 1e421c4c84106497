"""Webhook receivers that answer with anything: no event is lost, no password leaves its host."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Event
from taidpt.runtime.sinks import webhook
from taidpt.runtime.sinks.background import BackgroundSender, SendPolicy
from taidpt.runtime.sinks.mqtt import open_mqtt
from taidpt.runtime.sinks.webhook import open_webhook
from tests.runtime.sinks.senders import wait_for

QUICK = SendPolicy(first_pause_s=0.001, longest_pause_s=0.002, drain_s=10.0)
SECRET = "hunter2"
GOOD = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
RESET = b"reset"


class Drip(bytes):
    """An answer that goes on in small pieces, 20 ms apart, for 40 s."""

    def __new__(cls, start: bytes, pieces: list[bytes]) -> Drip:
        drip = super().__new__(cls, start)
        drip.pieces, drip.pieces_sent = pieces, 0
        return drip

    pieces: list[bytes]
    pieces_sent: int

    def send(self, connection: socket.socket) -> None:
        connection.sendall(self)
        for piece in itertools.islice(itertools.cycle(self.pieces), 2000):
            connection.sendall(piece)
            self.pieces_sent += 1
            time.sleep(0.02)


class RawServer:
    """Answers each request with the next of `answers`, then with 204; keeps what it accepted."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.answers = list(answers)
        self.records: list[dict[str, Any]] = []
        self.requests = 0
        self.targets: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        head, _, body = _read_until(connection, b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(body) < length and (more := connection.recv(1 << 16)):
            body += more
        self.requests += 1
        self.targets.append(head.split(b" ")[1])
        answer = self.answers.pop(0) if self.answers else GOOD
        if answer is RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        if answer.startswith(b"HTTP/1.1 2"):
            self.records.append(json.loads(body))
        if isinstance(answer, Drip):
            answer.send(connection)
        connection.sendall(answer.replace(b"PORT", str(self.port).encode()))


def _read_until(connection: socket.socket, mark: bytes) -> tuple[bytes, bytes, bytes]:
    data = b""
    while mark not in data and (more := connection.recv(1 << 16)):
        data += more
    return data.partition(mark)


@contextlib.contextmanager
def serving(answers: Sequence[bytes]) -> Iterator[RawServer]:
    server = RawServer(answers)
    try:
        yield server
    finally:
        server.close()


def bad_answer(chance: random.Random) -> bytes:
    """One answer that is not a success, of a random kind."""
    noise = chance.randbytes(chance.randint(0, 300)).replace(b"HTTP/1.1 2", b"")
    status = chance.choice([b"99 x", b"1000 x", b"abc x", b"-1 x", b"", b"500 x", b"404 x", b"100"])
    location = chance.choice(
        [
            b"http://127.0.0.1:1/x",
            b"http://[::1",
            b"file:///etc/passwd",
            b"ftp://127.0.0.1:1/x",
            b"//127.0.0.1:1/x",
            b"gopher:",
            noise.replace(b"\n", b"").replace(b"\r", b""),
        ]
    )
    redirect = chance.choice([b"301", b"302", b"303", b"307", b"308", b"300", b"310"])
    kinds: list[Callable[[], bytes]] = [
        lambda: noise,
        lambda: b"",
        lambda: RESET,
        lambda: b"SSH-2.0-OpenSSH_9.6\r\n",
        lambda: b"HTTP/1.1 " + b"9" * 70_000 + b"\r\n\r\n",
        lambda: b"HTTP/1.1 500 x\r\nA: " + b"a" * 70_000 + b"\r\n\r\n",
        lambda: b"HTTP/1.1 500 x\r\n" + b"".join(b"A%d: a\r\n" % n for n in range(200)) + b"\r\n",
        lambda: b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + noise,
        lambda: b"HTTP/1.1 500 x\r\nContent-Length: -5\r\n\r\n" + noise,
        lambda: b"HTTP/1.1 500 x\r\nContent-Length: 99999999999\r\n\r\n" + noise,
        lambda: b"HTTP/1.1 500 x\r\n\x00\x01" + noise + b"\r\n\r\n",
        lambda: b"HTTP/1.1 " + status + b"\r\n\r\n" + noise,
        lambda: b"HTTP/9.9 500\r\n" + noise,
        lambda: b"HTTP/1.1 100 Continue\r\n\r\n" * chance.randint(1, 50),
        lambda: b"HTTP/1.1 " + redirect + b" x\r\nLocation: " + location + b"\r\n\r\n",
        lambda: b"HTTP/1.1 302 x\r\nLocation: /again\r\n\r\n",
        lambda: b"HTTP/1.1 307 x\r\n\r\n",
        lambda: b"HTTP/1.1 401 x\r\nWWW-Authenticate: " + noise.replace(b"\n", b"") + b"\r\n\r\n",
    ]
    return chance.choice(kinds)()


def events(count: int) -> list[Event]:
    return [Event(float(n), f"tag {n}", "on", 1.0, float(n), 1.0) for n in range(count)]


def send_all(url: str, count: int) -> Any:
    sink = open_webhook(url, QUICK)
    for event in events(count):
        sink.sender.put({"time_s": event.time_s})
    sink.close()
    return sink.sender


def test_every_event_arrives_over_bad_answers(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(0)
    answers = [bad_answer(chance) for _ in range(400)]
    with serving(answers) as server, caplog.at_level(logging.DEBUG):
        sender = send_all(f"http://me:{SECRET}@127.0.0.1:{server.port}/key-{SECRET}", 60)
        assert [record["time_s"] for record in server.records] == list(range(60))
        assert not server.answers
    assert (sender.sent, sender.lost) == (60, 0)
    assert server.requests == len(answers) + 60
    assert sender.failures > 390  # a 307 to a random path of the same origin is followed
    assert SECRET not in caplog.text
    assert max(map(len, caplog.text.splitlines())) < 500


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirect_to_another_origin_is_refused_by_name(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving([]) as other, caplog.at_level(logging.WARNING):
        answer = f"HTTP/1.1 {code} x\r\nLocation: http://127.0.0.1:{other.port}/x\r\n\r\n".encode()
        with serving([answer] * 3) as server:
            sender = send_all(f"http://me:{SECRET}@127.0.0.1:{server.port}/", 2)
            assert len(server.records) == 2
        assert other.requests == 0
    assert (sender.sent, sender.lost, sender.failures) == (2, 0, 3)
    assert "redirects to http://127.0.0.1 are refused" in caplog.text


@pytest.mark.parametrize("code", [307, 308])
def test_redirect_to_the_same_origin_keeps_method_body_and_password(code: int) -> None:
    answer = f"HTTP/1.1 {code} x\r\nLocation: http://127.0.0.1:PORT/new\r\n\r\n".encode()
    with serving([answer]) as server:
        sender = send_all(f"http://me:{SECRET}@127.0.0.1:{server.port}/old", 1)
        assert (server.records, server.requests) == ([{"time_s": 0.0}], 2)
    assert (sender.sent, sender.failures) == (1, 0)


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/a b", b"/a%20b"),
        ("/café?q=ü", b"/caf%C3%A9?q=%C3%BC"),
        ("/a%20b/%", b"/a%20b/%"),
        ("/caf\udce9", b"/caf%E9"),
        ('/"<>{}|\\^`', b"/%22%3C%3E%7B%7D%7C%5C%5E%60"),
        ("", b"/"),
    ],
)
def test_a_path_of_any_letters_reaches_its_receiver(path: str, sent: bytes) -> None:
    with serving([]) as server:
        sender = send_all(f"http://127.0.0.1:{server.port}{path}", 1)
        assert server.targets == [sent]
    assert (sender.sent, sender.failures) == (1, 0)


def test_redirect_loop_is_a_failed_try() -> None:
    answer = b"HTTP/1.1 307 x\r\nLocation: http://127.0.0.1:PORT/again\r\n\r\n"
    with serving([answer] * 5) as server:
        sender = send_all(f"http://127.0.0.1:{server.port}/", 1)
        assert len(server.records) == 1
    assert (sender.sent, sender.lost) == (1, 0)


def test_receiver_that_never_answers_loses_records_by_name_and_count(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhook, "_TIMEOUT_S", 0.2)
    policy = SendPolicy(first_pause_s=0.001, longest_pause_s=0.002, drain_s=0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, caplog.at_level(logging.WARNING):
        sink = open_webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/", policy)
        for number in range(5):
            sink.sender.put({"n": number})
        assert wait_for(lambda: sink.sender.failures > 0)
        sink.close()
    assert (sink.sender.sent, sink.sender.lost) == (0, 5)
    assert "0 sent, 5 lost" in caplog.text


HEAD = b"HTTP/1.1 200 OK\r\nA: "


@pytest.mark.parametrize(
    ("start", "pieces", "reason"),
    [
        (b"", [b"HTTP/1.1 200 OK"], "timed out"),
        (HEAD, [b"a"], "timed out"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", [b"HTTP/1.1 100 Continue\r\n\r\n"], "timed out"),
        (b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n", [b"1\r\na\r\n"], "500"),
        (b"HTTP/1.1 307 x\r\nLocation: /again\r\n\r\n", [b"x"], "timed out"),
        (b"HTTP/1.1 302 x\r\nLocation: /again\r\n\r\n", [b"x" * 60_000], "redirects to"),
        (b"HTTP/1.1 308 x\r\nLocation: /\r\n\r\n", [b"x" * 60_000] * 40, "more than 1024 KiB"),
    ],
)
def test_an_answer_that_never_ends_holds_no_try_longer_than_its_limit(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    start: bytes,
    pieces: list[bytes],
    reason: str,
) -> None:
    """Every piece comes long before a socket's own timeout; the sum of the pieces does not end."""
    monkeypatch.setattr(webhook, "_TIMEOUT_S", 0.4)
    drip = Drip(start, pieces)
    with serving([drip]) as server, caplog.at_level(logging.WARNING):
        sender = send_all(f"http://127.0.0.1:{server.port}/", 2)
        assert server.requests == 3
    assert (sender.sent, sender.lost, sender.failures) == (2, 0, 1)
    assert re.search(reason, caplog.text)
    assert drip.pieces_sent < 60  # of 2,000: the sender closed the connection


def test_an_accepted_event_is_not_sent_twice_when_the_answer_never_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook, "_TIMEOUT_S", 0.4)
    drip = Drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0", [b"0"])
    with serving([drip]) as server:
        sender = send_all(f"http://127.0.0.1:{server.port}/", 2)
        assert [record["time_s"] for record in server.records] == [0.0, 1.0]
    assert (sender.sent, sender.lost, sender.failures) == (2, 0, 0)


def test_record_in_hand_of_a_hung_receiver_counts_as_lost() -> None:
    """The receiver answers a byte a second: the record that is being sent is not forgotten."""
    released = threading.Event()

    def send(record: dict[str, Any]) -> None:
        released.wait(20)

    sender = BackgroundSender("slow", send, SendPolicy(drain_s=0.1))
    sender.put({"n": 0})
    sender.put({"n": 1})
    time.sleep(0.1)
    sender.close()
    assert (sender.sent, sender.lost) == (0, 2)
    released.set()
    assert not wait_for(lambda: sender.sent > 0, 0.3)


class OddError(Exception):
    """An error of no known kind, without a text."""


@pytest.mark.parametrize("kind", [OddError, RuntimeError, KeyError, MemoryError, AssertionError])
def test_any_exception_of_a_sender_is_a_failed_try(kind: type[Exception]) -> None:
    arrived: list[int] = []
    failures = [3]

    def send(record: dict[str, Any]) -> None:
        if failures[0]:
            failures[0] -= 1
            raise kind
        arrived.append(record["n"])

    sender = BackgroundSender("odd", send, QUICK)
    for number in range(10):
        sender.put({"n": number})
    sender.close()
    assert arrived == list(range(10))
    assert (sender.sent, sender.lost, sender.failures) == (10, 0, 3)


PARTS = (
    f"me:{SECRET}@",
    "[",
    "]",
    ":",
    "@",
    "/",
    "//",
    "abc",
    "%",
    "\x00",
    "\n",
    " ",
    "é",
    "#",
    "?",
    "99999",
    "..",
)


def test_an_address_is_used_or_refused_in_one_line_at_start() -> None:
    """Whatever is refused is refused with InputError, before any thread starts."""
    chance = random.Random(1)
    refused: list[str] = []
    for _ in range(2000):
        scheme = chance.choice(["http://", "https://", "mqtt://", "mqtts://", "http:", "ftp://"])
        text = scheme + "".join(chance.choices(PARTS, k=chance.randint(0, 6)))
        check = webhook._parse_url if scheme.startswith("http") else open_mqtt
        try:
            found = check(text)
            if not isinstance(found, tuple):
                found.close()
        except InputError as error:
            refused.append(str(error))
    assert 200 < len(refused) < 2000
    assert not [line for line in refused if "\n" in line or SECRET in line]

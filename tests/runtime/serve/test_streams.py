"""Answers without an end: events that resume, live pictures from one encoder, many viewers."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket

from PIL import Image

from taidpt.runtime.serve.server import _listen
from taidpt.runtime.sites.config import CameraConfig, SiteConfig
from tests.runtime.serve.server import Server
from tests.runtime.sinks.senders import wait_for


def test_no_answer_waits_until_its_headers_are_acknowledged() -> None:
    """With Nagle's algorithm each body would come 40 ms after its headers."""
    config = SiteConfig("street.taidpt", (CameraConfig("cam1", "/dev/video0"),), port=0)
    with (
        _listen(config) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_tags_and_events_arrive_and_resume_where_a_client_stopped(server: Server) -> None:
    with server.open("/v1/stream") as answer:
        seen = {}
        for name, number, data in server.messages(answer):
            seen[name] = number, data
            if len(seen) == 2:
                break
    assert seen["tags"][1]["camera"] in ("cam1", "cam2")
    last, event = seen["event"]
    assert event["id"] == last > 0
    assert wait_for(lambda: len(server.ask(f"/v1/events?before={last + 4}").json["events"]) > 2)
    assert wait_for(lambda: server.ask("/v1/events?limit=1").json["events"][0]["id"] >= last + 3)
    with server.open("/v1/stream", Last_Event_ID=str(last - 1)) as answer:
        found = (number for name, number, _ in server.messages(answer) if name == "event")
        numbers = [next(found) for _ in range(6)]  # from the store, and then live
    assert numbers == list(range(last, last + 6))


def test_live_pictures_share_one_encoder_that_stops_with_the_last_viewer(server: Server) -> None:
    def viewers() -> int:
        return int(server.ask("/v1/cameras/cam1").json["viewers"])

    with contextlib.ExitStack() as stack:
        answers = [stack.enter_context(server.open("/v1/cameras/cam1/live")) for _ in range(3)]
        for answer in answers:
            assert Image.open(io.BytesIO(read_part(answer)[1])).size == (128, 96)
        assert viewers() == 3
        tagged = server.site.cameras["cam1"].tagged
        encoded = server.encoded("cam1")
        for answer in answers:
            for _ in range(5):
                read_part(answer)
        assert server.encoded("cam1") - encoded <= server.site.cameras["cam1"].tagged - tagged + 1
    assert wait_for(lambda: viewers() == 0)
    encoded = server.encoded("cam1")
    tagged = server.site.cameras["cam1"].tagged
    assert wait_for(lambda: server.site.cameras["cam1"].tagged > tagged + 3)
    assert server.encoded("cam1") <= encoded + 1


def test_one_answer_carries_the_pictures_of_all_cameras(server: Server) -> None:
    with server.open("/v1/live") as answer:
        assert {read_part(answer)[0] for _ in range(8)} == {"cam1", "cam2"}


def test_a_thousand_viewers_get_a_seat_or_one_line_and_tagging_continues(server: Server) -> None:
    """Of which some read nothing at all."""
    held: list[socket.socket] = []
    tagged = server.site.cameras["cam1"].tagged
    refused = 0
    try:
        for _ in range(1000):
            viewer = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            viewer.sendall(b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = viewer.recv(12)
            if head.endswith(b"200"):
                held.append(viewer)
            else:
                assert head.endswith(b"503")
                refused += 1
                viewer.close()
        assert 0 < len(held) <= 64
        assert refused == 1000 - len(held)
        assert wait_for(lambda: server.site.cameras["cam1"].tagged > tagged + 5)
        assert server.ask("/v1/health").json["ready"]
    finally:
        for viewer in held:
            viewer.close()
    assert wait_for(lambda: server.ask("/v1/cameras/cam1").json["viewers"] == 0)


def read_part(answer: http.client.HTTPResponse) -> tuple[str, bytes]:
    """Camera and JPEG of the next part."""
    headers = {}
    assert answer.readline() == b"--frame\r\n"
    while line := answer.readline().strip():
        name, _, value = line.decode().partition(": ")
        headers[name] = value
    picture = answer.read(int(headers["Content-Length"]))
    assert answer.readline() == b"\r\n"
    return headers["X-Camera"], picture

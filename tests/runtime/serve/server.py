"""A running server of a tiny site, and a plain client."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taidpt.runtime.serve.app import make_app
from taidpt.runtime.serve.feed import Feed
from taidpt.runtime.serve.metrics import Metrics
from taidpt.runtime.serve.security import Limits
from taidpt.runtime.serve.server import _listen, _Relay, _served, open_group
from taidpt.runtime.sites.config import CameraConfig, SiteConfig
from taidpt.runtime.sites.home_assistant import HomeAssistant
from taidpt.runtime.sites.site import Site
from taidpt.runtime.sites.store import EventStore
from tests.runtime.sinks.senders import wait_for

__all__ = ["Answer", "Server", "running"]

# Tests ask as fast as they can.
_UNLIMITED = Limits(requests=1e6, burst=1e6)


@dataclasses.dataclass
class Answer:
    """One answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running server, asked over HTTP."""

    def __init__(self, site: Site, app: Any, port: int) -> None:
        self.site, self.app, self.port = site, app, port
        self.group = next(iter(site.groups.values()))
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        """Ask; a body that is not bytes is sent as JSON; `X_y` in headers becomes X-y."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            named.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def encoded(self, camera: str) -> int:
        """How many live pictures of a camera were encoded so far."""
        return int(self.app.state.pictures[camera].encoded)

    @contextlib.contextmanager
    def open(self, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
        """An endless answer, to be read as it comes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path, headers=named)
        answer = connection.getresponse()
        try:
            yield answer
        finally:
            connection.close()

    def messages(self, answer: http.client.HTTPResponse) -> Iterator[tuple[str, int, Any]]:
        """Name, id (0 without) and data of server-sent events."""
        fields: dict[str, str] = {}
        for raw in answer:
            line = raw.decode().rstrip("\n")
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield fields["event"], int(fields.get("id", 0)), json.loads(fields["data"])
                fields = {}


@contextlib.contextmanager
def running(
    bundle: Path,
    data: Path,
    *sources: str,
    token: str | None = None,
    limits: Limits = _UNLIMITED,
    wait: bool = True,
    **options: Any,
) -> Iterator[Server]:
    """A server of these cameras; with `wait` each has been tagged when it is handed over."""
    cameras = tuple(CameraConfig(f"cam{number}", text) for number, text in enumerate(sources, 1))
    named = options.pop("cameras", cameras)
    first = None if options.get("bundles") else str(bundle)
    config = SiteConfig(first, named, port=0, data=str(data), device="cpu", threads=1, **options)
    data.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_listen(config))
        groups = [stack.enter_context(open_group(one, config)) for one in config.models]
        relay = _Relay()
        store = EventStore(data / "events.sqlite", config.retention, relay)
        stack.enter_context(store)
        site = stack.enter_context(Site(config, groups, store, []))
        feed = Feed(site)
        relay.receivers += [feed.on_event, site.keep_clip]
        if config.home_assistant is not None:
            house = stack.enter_context(HomeAssistant(config.home_assistant, site))
            relay.receivers.append(house.on_event)
        app = make_app(site, feed, Metrics(site), token, limits)
        site.start()
        stack.enter_context(_served(app, listening))
        server = Server(site, app, listening.getsockname()[1])
        assert wait_for(lambda: _answers(server))
        if wait:
            assert wait_for(lambda: all(camera.latest for camera in site.cameras.values()))
        yield server


def _answers(server: Server) -> bool:
    with contextlib.suppress(OSError):
        return server.ask("/healthz").status == 200
    return False

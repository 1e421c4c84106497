"""Run `taidpt serve`: open everything, serve until a signal, close everything."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.serve.systemd import Systemd
from taidpt.runtime.sinks.background import BackgroundSender
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sinks.mqtt import open_mqtt
from taidpt.runtime.sinks.webhook import open_webhook
from taidpt.runtime.sites.bank_edits import BankEdits
from taidpt.runtime.sites.camera_group import CameraGroup
from taidpt.runtime.sites.config import BundleConfig, CameraConfig, SiteConfig
from taidpt.runtime.sites.home_assistant import HomeAssistant
from taidpt.runtime.sites.site import Site
from taidpt.runtime.sites.site_file import read_site
from taidpt.runtime.sites.store import EventStore, StoredEvent
from taidpt.runtime.storage.atomic import try_lock
from taidpt.runtime.tag.terminal import log_to_stderr
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["config_from_options", "open_group", "run_serve"]

_LOG = logging.getLogger("taidpt.runtime")
# Connections at once, above which the rest is answered with 503.
_MOST_CONNECTIONS = 256
# How long open answers may take at the end, in seconds.
_GRACE_S = 3
# Bytes of a request's head: cookies of other services on the same host fit.
_LARGEST_HEAD = 32 << 10


def config_from_options(
    bundle: str | None, sources: Sequence[str], options: Mapping[str, Any]
) -> SiteConfig:
    """A configuration from the command line; `--config` names a file that the options override.

    Raises:
        InputError: there is no bundle or no source, or a value is wrong.
    """
    given = {name: value for name, value in options.items() if value is not None}
    path = given.pop("config", None)
    if sources:
        given["cameras"] = tuple(
            CameraConfig(f"camera-{number}", source) for number, source in enumerate(sources, 1)
        )
    if bundle is not None:
        given["bundle"] = bundle
    if path is not None:
        return read_site(path, given)
    if bundle is None:
        raise InputError("no bundle; give BUNDLE and a SOURCE, or --config site.yaml")
    return SiteConfig(**given)


def run_serve(config: SiteConfig, verbose: bool = False) -> None:
    """Serve a site until SIGINT or SIGTERM.

    Raises:
        TaidptError: the bundle, the port, the data folder or the token cannot be used; or tagging
            failed.
    """
    with optional_packages("taidpt serve", "serve"):
        from taidpt.runtime.serve.app import make_app
        from taidpt.runtime.serve.feed import Feed
        from taidpt.runtime.serve.metrics import Metrics
        from taidpt.runtime.serve.security import read_token
    with contextlib.ExitStack() as stack:
        stack.enter_context(log_to_stderr(logging.DEBUG if verbose else logging.INFO))
        token = read_token(config.token_file, config.host)
        listening = stack.enter_context(_listen(config))
        _lock_folder(config)
        groups = [stack.enter_context(open_group(one, config)) for one in config.models]
        relay = _Relay()
        store = stack.enter_context(
            EventStore(config.folder / "events.sqlite", config.retention, relay)
        )
        site = stack.enter_context(Site(config, groups, store, _open_sinks(config, stack)))
        _open_rule_sinks(site, stack)
        feed = Feed(site)
        relay.receivers += [feed.on_event, site.keep_clip]
        if config.home_assistant is not None:
            house = stack.enter_context(HomeAssistant(config.home_assistant, site))
            relay.receivers.append(house.on_event)
        app = make_app(site, feed, Metrics(site), token)
        site.start()
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        devices = dict.fromkeys(str(group.tagger.device) for group in groups)
        _LOG.info("on %s; the page is at http://%s:%d", ", ".join(devices), shown, port)
        with _served(app, listening), Systemd(lambda: site.ready):
            _wait(site)
        if site.failure is not None:
            raise site.failure


class _Relay:
    """Passes stored events on to receivers that are made after the store."""

    def __init__(self) -> None:
        self.receivers: list[Callable[[StoredEvent], None]] = []

    def __call__(self, event: StoredEvent) -> None:
        for receive in self.receivers:
            receive(event)


@contextlib.contextmanager
def _served(app: Any, listening: socket.socket) -> Iterator[None]:
    """Serve in a thread of its own, so that signals stay with the main thread."""
    import uvicorn

    settings = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        log_level="warning",
        lifespan="on",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_S,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_LARGEST_HEAD,
    )

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.end_streams()  # they would never end by themselves
            await super().shutdown(sockets)

    server = Server(settings)
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True, name="http"
    )
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_GRACE_S + 2.0)


def _wait(site: Site) -> None:
    """Until SIGTERM, or until tagging has failed; SIGINT raises KeyboardInterrupt as usual."""
    previous = signal.getsignal(signal.SIGTERM)
    in_main = threading.current_thread() is threading.main_thread()
    if in_main:
        signal.signal(signal.SIGTERM, lambda *_: site.ended.set())
    try:
        site.ended.wait()
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, previous)


def _listen(config: SiteConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listening = socket.create_server((config.host, config.port), family=family, backlog=128)
        # Connections inherit it. asyncio sets it on sockets that it makes itself alone, and without
        # it the body of an answer waits 40 ms until the client has acknowledged the headers.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"cannot listen on {config.host}:{config.port}: {reason}; choose another with --port "
            "(0: any that is free)"
        ) from None


def _lock_folder(config: SiteConfig) -> None:
    try:
        config.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{config.folder}: cannot be made: {error.strerror}; see --data") from None
    if try_lock(config.folder) is None:
        raise InputError(
            f"{config.folder}: another `taidpt serve` uses this folder; name another with --data"
        )


def open_group(bundle: BundleConfig, config: SiteConfig) -> CameraGroup:
    """The cameras of a bundle with its tagger; closing it closes all."""
    tagger = Tagger.load(
        bundle.path,
        device=config.device,
        threads=config.threads,
        trust_engine=config.trust_engine,
        resize=config.resize,
    )
    try:
        edits = BankEdits(tagger, config.banks_of(bundle), bundle.prompts)
        if bundle.bank is not None:
            edits.start_with(bundle.bank)
        return CameraGroup(bundle, config, tagger, edits)
    except BaseException:
        tagger.close()
        raise


def _open_sinks(config: SiteConfig, stack: contextlib.ExitStack) -> list[Sink]:
    sinks: list[Sink] = []
    if config.webhook is not None:
        sinks.append(open_webhook(config.webhook))
    if config.mqtt is not None:
        sinks.append(open_mqtt(config.mqtt))
    for sink in sinks:
        stack.callback(sink.close)
    return sinks


def _open_rule_sinks(site: Site, stack: contextlib.ExitStack) -> None:
    """One sender an address, however many rules name it."""
    senders: dict[str, BackgroundSender] = {}
    for rule in site.config.rules:
        for url, open_sink in ((rule.webhook, open_webhook), (rule.mqtt, open_mqtt)):
            if url is None:
                continue
            if url not in senders:
                sink = open_sink(url)
                stack.callback(sink.close)
                senders[url] = sink.sender
            site.rule_sinks.setdefault(rule.id, []).append(senders[url])

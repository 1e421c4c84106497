"""Who may ask, how much, and what a browser may do with the answers."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taidpt.runtime.errors import InputError
from taidpt.runtime.loopback import is_loopback
from taidpt.runtime.serve.operations import error

__all__ = ["COOKIE", "Guard", "Limits", "cookie_value", "read_token", "same_text"]

COOKIE = "taidpt"
_SHORTEST_TOKEN = 16
_SAFE = ("GET", "HEAD", "OPTIONS")
# Pages for which no token is asked: the form that takes it, its looks, and "is it alive".
_OPEN = ("/login", "/healthz")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True)
class Limits:
    """What one client may ask for.

    A page with eight cameras asks for some ten things when it opens and little afterwards, so 40
    requests a second with a burst of 200 are far above any person, and far below what would delay
    tagging. 16 MiB hold a picture of a large camera.

    Attributes:
        body_bytes: largest body of a request.
        requests: requests a second of one address, over time.
        burst: requests at once.
        addresses: addresses that are remembered.
    """

    body_bytes: int = 16 << 20
    requests: float = 40.0
    burst: float = 200.0
    addresses: int = 10_000


def read_token(path: str | None, host: str) -> str | None:
    """The token that clients need.

    Args:
        path: the file that holds it; None needs none.
        host: where the server listens.
    Raises:
        InputError: the file cannot be read or holds too little, or an address that other machines
            reach is asked for without a token.
    """
    if path is None:
        if not is_loopback(host):
            raise InputError(
                f"--host {host} can be reached by other machines, so clients need a token: "
                "(umask 077; openssl rand -hex 24 > token) and --token-file token"
            )
        return None
    try:
        token = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as failure:
        raise InputError(f"{path}: cannot be read as a token: {failure}") from None
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or any(map(str.isspace, token)):
        raise InputError(
            f"{path}: a token has at least {_SHORTEST_TOKEN} ASCII letters and no blank; make one: "
            f"openssl rand -hex 24 > {path}"
        )
    return token


def cookie_value(token: str) -> str:
    """What the cookie of a browser holds: not the token itself."""
    return hmac.new(token.encode(), b"taidpt cookie", hashlib.sha256).hexdigest()


class Guard:
    """Middleware around the whole application.

    - Without a token, requests must name this machine as their host, so that no web page can reach
      the server under a name of its own (DNS rebinding).
    - With a token, a request carries it as `Authorization: Bearer …`, or the cookie of the login.
    - What changes something must come from the page itself, or from no browser.
    - Requests a second and bytes of a body are limited.
    """

    def __init__(self, app: ASGIApp, token: str | None, host: str, limits: Limits) -> None:
        self._app, self._host, self._limits = app, host, limits
        self._token = token
        self._cookie = None if token is None else cookie_value(token)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        refused = self._refusal(scope, headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message)
            await send(message)

        if refused is not None:
            status, reason = refused
            extra = {"Retry-After": "1"} if status == 429 else {}
            extra |= {"WWW-Authenticate": "Bearer"} if status == 401 else {}
            await error(status, reason, extra)(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, self._limited(receive), send_with_headers)
        except _TooLargeError:
            await error(413, self._too_large())(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str] | None:
        client = (scope.get("client") or ("",))[0]
        if not self._has_budget(client):
            return 429, "too many requests; slow down"
        if self._token is None and not self._is_own_host(headers.get("host", "")):
            return 403, "this server answers only as localhost; use http://127.0.0.1"
        if self._is_foreign(scope["method"], headers):
            return 403, "requests from other web pages are refused"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._limits.body_bytes:
            return 413, self._too_large()
        path = scope["path"]
        is_open = path in _OPEN or path.startswith("/static/")
        if self._token is not None and not is_open and not self._is_known(headers):
            return 401, "a token is needed: Authorization: Bearer TOKEN, or /login in a browser"
        return None

    def _has_budget(self, client: str) -> bool:
        now = time.monotonic()
        left, seen = self._buckets.pop(client, (self._limits.burst, now))
        left = min(left + (now - seen) * self._limits.requests, self._limits.burst)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left), now
        if len(self._buckets) > self._limits.addresses:
            self._buckets.popitem(last=False)
        return allowed

    def _is_own_host(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        return is_loopback(name) or name == self._host

    def _is_foreign(self, method: str, headers: Mapping[str, str]) -> bool:
        """Whether a browser says that another site's page sent this."""
        site = headers.get("sec-fetch-site", "none")
        navigates = headers.get("sec-fetch-mode") == "navigate" and method in _SAFE
        if site in ("cross-site", "same-site") and not navigates:
            return True
        origin = headers.get("origin")
        if method in _SAFE or origin is None:
            return False
        return urlsplit(origin).netloc != headers.get("host", "")

    def _is_known(self, headers: Mapping[str, str]) -> bool:
        assert self._token is not None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return same_text(given.strip(), self._token)
        return same_text(_cookie(headers), self._cookie or "")

    def _limited(self, receive: Receive) -> Receive:
        left = self._limits.body_bytes

        async def receive_limited() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLargeError
            return message

        return receive_limited

    def _too_large(self) -> str:
        return f"a body has at most {self._limits.body_bytes >> 20} MiB"


class _TooLargeError(Exception):
    pass


def _cookie(headers: Mapping[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def same_text(given: str, expected: str) -> bool:
    """Whether two secrets are equal; how long it takes does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _add_headers(message: MutableMapping[str, Any]) -> None:
    message["headers"] = [
        *message.get("headers", ()),
        *((name.encode(), value.encode()) for name, value in _HEADERS.items()),
    ]

"""Events by HTTP: one POST of a JSON object per event."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import json
import socket
import time
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import IO, Any
from urllib.parse import SplitResult, quote, unquote_to_bytes, urljoin, urlsplit

from taidpt.runtime.errors import InputError
from taidpt.runtime.redact import protect
from taidpt.runtime.sinks.background import BackgroundSender, EventSender, SendPolicy

__all__ = ["open_webhook"]

# Longest duration of a try, from the connection to the answer's head. A receiver on the local
# network answers in milliseconds; one that is slower than this is as good as away. What follows
# the head is not used, so an answer of more than some headers is cut off.
_TIMEOUT_S = 5.0
_MOST_ANSWER_BYTES = 1 << 20
_PORTS = {"http": 80, "https": 443}
# Characters of a path and a query that are sent as they are, RFC 3986; % begins an escape.
_UNQUOTED = "/?%:@!$&'()*+,;=-._~"


def open_webhook(url: str, policy: SendPolicy | None = None) -> EventSender:
    """A sink that posts each event to an address.

    A user name and password in the address become a Basic authorisation header. Redirects are
    refused, except 307 and 308 to the same scheme, host and port: others would drop the body, or
    hand the password to another host. The log names the host alone, as paths often hold a key.

    Raises:
        InputError: the address is not an http or https URL.
    """
    address, origin, headers = _parse_url(url)
    limits = _Limits()
    handlers = _HttpHandler(limits), _HttpsHandler(limits)
    opener = urllib.request.build_opener(_SameOriginRedirects, *handlers)

    def send(record: dict[str, Any]) -> None:
        data = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace")
        request = urllib.request.Request(address, data, headers, method="POST")
        limits.start()
        answer = opener.open(request, timeout=_TIMEOUT_S)
        # the status says that the event was accepted, whatever follows
        with answer, contextlib.suppress(OSError, HTTPException):
            answer.read(1)

    return EventSender(BackgroundSender(origin, send, policy))


def _parse_url(url: str) -> tuple[str, str, dict[str, str]]:
    """The URL without credentials, its origin, and the headers to send."""
    protect(url)
    reason = "a webhook needs an http:// or https:// address"
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:  # a bad port, bracket or host name; its text may repeat a password
        raise InputError(f"--webhook: {reason} with a host and a port from 1 to 65535") from None
    if parts.scheme not in _PORTS or not host:
        raise InputError(f"--webhook: {reason}")
    if port == 0 or any(letter < "!" or letter == "\x7f" for letter in url.replace(" ", "!")):
        raise InputError(f"--webhook: {reason} without control characters, and no port 0")
    if " " in host:
        raise InputError(f"--webhook: {reason} without a blank in its host")
    origin = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}"
    origin += f":{port}" if port else ""
    path = quote(parts.path or "/", _UNQUOTED, errors="surrogateescape")
    query = quote(parts.query, _UNQUOTED, errors="surrogateescape")
    headers = {"Content-Type": "application/json", "User-Agent": "taidpt"}
    if parts.username is not None:
        pair = unquote_to_bytes(_bytes(parts.username)) + b":"
        pair += unquote_to_bytes(_bytes(parts.password or ""))
        headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
    return f"{origin}{path}" + (f"?{query}" if query else ""), origin, headers


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class _Limits:
    """Time and bytes of a try; a socket's timeout alone holds for each piece of an answer."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin a try."""
        self._deadline, self._bytes_left = time.monotonic() + _TIMEOUT_S, _MOST_ANSWER_BYTES

    def seconds_left(self) -> float:
        """Time for the next operation; raises TimeoutError at the end of the try."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def count(self, size: int) -> int:
        """Count bytes of the answer; raises OSError when they are too many."""
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise OSError(f"an answer of more than {_MOST_ANSWER_BYTES >> 10} KiB")
        return size


class _LimitedReader(io.RawIOBase):
    """Reads a socket within the limits of a try."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, limits: _Limits) -> None:
        self._raw, self._socket, self._limits = raw, sock, limits

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Some bytes; TimeoutError or OSError at the limits."""
        self._socket.settimeout(self._limits.seconds_left())
        return self._limits.count(self._raw.readinto(buffer) or 0)

    def close(self) -> None:
        """Release the socket."""
        self._raw.close()
        super().close()


def _connect(kind: type[HTTPConnection], limits: _Limits, host: str, **options: Any) -> Any:
    """An HTTP or HTTPS connection whose answers are read within the limits."""

    class Response(HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
            super().__init__(sock, *args, **kwargs)
            self.fp = io.BufferedReader(_LimitedReader(self.fp.detach(), sock, limits))

    connection = kind(host, **{**options, "timeout": limits.seconds_left()})
    connection.response_class = Response
    return connection


class _Limited(urllib.request.AbstractHTTPHandler):
    """Opens URLs within the limits of a try."""

    def __init__(self, limits: _Limits) -> None:
        super().__init__()
        self._limits = limits

    def do_open(self, http_class: Any, req: urllib.request.Request, **options: Any) -> Any:
        """As the base class."""
        connect = functools.partial(_connect, http_class, self._limits)
        return super().do_open(connect, req, **options)


class _HttpHandler(_Limited, urllib.request.HTTPHandler):
    pass


class _HttpsHandler(_Limited, urllib.request.HTTPSHandler):
    pass


class _SameOriginRedirects(urllib.request.HTTPRedirectHandler):
    """Repeats the POST for 307 and 308 to the same origin; refuses every other redirect."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request:
        """The request to send next; HTTPError where the redirect is refused."""
        target = urlsplit(urljoin(req.full_url, newurl))
        if code not in (307, 308) or _origin(target) != _origin(urlsplit(req.full_url)):
            reason = f"redirects to {target.scheme}://{target.hostname} are refused"
            raise urllib.error.HTTPError(req.full_url, code, reason, headers, fp)
        return urllib.request.Request(
            target.geturl(), req.data, req.headers, req.origin_req_host, True, "POST"
        )

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302  # not in Python 3.10


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)

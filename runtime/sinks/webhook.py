"""Events by HTTP: one POST of a JSON object per event."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from email.message import Message
from typing import IO, Any
from urllib.parse import SplitResult, quote, unquote_to_bytes, urljoin, urlsplit

from taidpt.runtime.errors import InputError
from taidpt.runtime.sinks.background import BackgroundSender, EventSender, SendPolicy

__all__ = ["open_webhook"]

# Longest wait for a connection, and between two pieces of the answer. A receiver on the local
# network answers in milliseconds; one that is slower than this is as good as away.
_TIMEOUT_S = 5.0
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
    opener = urllib.request.build_opener(_SameOriginRedirects)

    def send(record: dict[str, Any]) -> None:
        data = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace")
        request = urllib.request.Request(address, data, headers, method="POST")
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            answer.read(1)

    return EventSender(BackgroundSender(origin, send, policy))


def _parse_url(url: str) -> tuple[str, str, dict[str, str]]:
    """The URL without credentials, its origin, and the headers to send."""
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

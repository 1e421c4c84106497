"""Events by HTTP: one POST of a JSON object per event."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit

from taidpt.runtime.errors import InputError
from taidpt.runtime.redact import redact
from taidpt.runtime.sinks.background import BackgroundSender, EventSender, SendPolicy

__all__ = ["open_webhook"]

_TIMEOUT_S = 5.0


def open_webhook(url: str, policy: SendPolicy | None = None) -> EventSender:
    """A sink that posts each event to an address.

    A user name and password in the address become a Basic authorisation header.

    Raises:
        InputError: the address is not an http or https URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{redact(url)}: a webhook needs an http:// or https:// address")
    headers = {"Content-Type": "application/json", "User-Agent": "taidpt"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def send(record: dict[str, Any]) -> None:
        data = json.dumps(record, ensure_ascii=False).encode()
        request = urllib.request.Request(plain, data, headers, method="POST")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            answer.read(1)

    return EventSender(BackgroundSender(redact(url), send, policy))

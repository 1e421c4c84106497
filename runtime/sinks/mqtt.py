"""Events to an MQTT broker with QoS 1; a bounded queue keeps them while the broker is away."""

from __future__ import annotations

import contextlib
import json
from typing import Any
from urllib.parse import unquote, urlsplit

from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.redact import protect, redact
from taidpt.runtime.sinks.background import BackgroundSender, EventSender, SendPolicy

__all__ = ["BrokerAddress", "open_mqtt"]

_TOPIC = "taidpt/events"
# As long as a webhook may take.
_ACKNOWLEDGED_S = 5.0
# MQTT writes the length of a topic in two bytes; a letter has at most four.
_LONGEST_TOPIC = 65_535 // 4


class BrokerAddress:
    """`mqtt://[user:password@]host[:port][/topic]`, or `mqtts://…`.

    Attributes:
        topic: the topic of the address; empty without one.
    """

    def __init__(self, url: str, option: str = "--mqtt") -> None:
        """Parse an address.

        Args:
            url: the address.
            option: what errors call it.
        Raises:
            InputError: the address is not of that form.
            MissingDependencyError: paho-mqtt is not installed.
        """
        protect(url)
        expected = f"{option}: expected mqtt://[user:password@]host[:port][/topic]"
        try:
            parts = urlsplit(url)
            port = parts.port
            host = (parts.hostname or "").encode("idna").decode()
            self.topic = unquote(parts.path.strip("/"), errors="strict")
        except ValueError:  # its text may repeat a password
            raise InputError(f"{expected}, with a port from 1 to 65535 and UTF-8") from None
        if parts.scheme not in ("mqtt", "mqtts") or not host or port == 0:
            raise InputError(expected)
        if parts.query or parts.fragment or url.endswith(("?", "#")):
            raise InputError(f"{expected}; a password's ? and # are written %3F and %23")
        if any(letter in self.topic for letter in "+#\0") or len(self.topic) > _LONGEST_TOPIC:
            raise InputError(f"{expected}; the topic needs to be one topic, without + and #")
        self._paho = _import_paho(option)
        self._parts, self.host = parts, host
        self._secure = parts.scheme == "mqtts"
        self.port = port or (8883 if self._secure else 1883)

    def new_client(self) -> Any:
        """A client of paho with name, password and TLS, which is not connected."""
        client = self._paho.Client(self._paho.CallbackAPIVersion.VERSION2)
        if self._parts.username is not None:
            password = unquote(self._parts.password or "")
            client.username_pw_set(unquote(self._parts.username), password)
        if self._secure:
            client.tls_set()
        return client


class _Broker:
    """One connection, opened at the first record and again after every loss.

    Each connection has a new client: an old client would resend records that are retried here.
    """

    def __init__(self, url: str) -> None:
        self._address = BrokerAddress(url)
        self._topic = self._address.topic or _TOPIC
        self._client: Any = None

    def send(self, record: dict[str, Any]) -> None:
        """Publish one record and wait for its acknowledgement; raises without one."""
        try:
            if self._client is None:
                self._client = self._connect()
            payload = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace")
            message = self._client.publish(self._topic, payload, qos=1)
            message.wait_for_publish(_ACKNOWLEDGED_S)
            if not message.is_published():
                raise ConnectionError("the broker did not acknowledge in time")
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # the connection is given up in any case
                client.disconnect()
                client.loop_stop()

    def _connect(self) -> Any:
        client = self._address.new_client()
        client.connect(self._address.host, self._address.port)
        client.loop_start()
        return client


def _import_paho(option: str) -> Any:
    with optional_packages(option):
        import paho.mqtt.client as paho
    return paho


def open_mqtt(url: str, policy: SendPolicy | None = None) -> EventSender:
    """A sink that publishes each event.

    Args:
        url: `mqtt://[user:password@]host[:port][/topic]`, or `mqtts://…`; topic taidpt/events.
        policy: how long events wait for the broker.
    Raises:
        InputError: the address is not of that form.
        MissingDependencyError: paho-mqtt is not installed.
    """
    broker = _Broker(url)
    return EventSender(BackgroundSender(redact(url), broker.send, policy), broker.close)

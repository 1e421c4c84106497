"""Events to an MQTT broker with QoS 1; a bounded queue keeps them while the broker is away."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urlsplit

from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.redact import redact
from taidpt.runtime.sinks.background import BackgroundSender, EventSender, SendPolicy

__all__ = ["open_mqtt"]

_TOPIC = "taidpt/events"
_ACKNOWLEDGED_S = 5.0


class _Broker:
    """One connection, opened at the first record and again after every loss.

    Each connection has a new client: an old client would resend records that are retried here.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise InputError(f"{redact(url)}: expected mqtt://host[:port][/topic]")
        self._paho = _import_paho()
        self._parts, self._host = parts, parts.hostname
        self._secure = parts.scheme == "mqtts"
        self._port = parts.port or (8883 if self._secure else 1883)
        self._topic = unquote(parts.path.strip("/")) or _TOPIC
        self._client: Any = None

    def send(self, record: dict[str, Any]) -> None:
        """Publish one record and wait for its acknowledgement; OSError without one."""
        try:
            if self._client is None:
                self._client = self._connect()
            payload = json.dumps(record, ensure_ascii=False)
            message = self._client.publish(self._topic, payload, qos=1)
            message.wait_for_publish(_ACKNOWLEDGED_S)
            if not message.is_published():
                raise ConnectionError("the broker did not acknowledge in time")
        except (OSError, RuntimeError, ValueError) as error:
            self.close()
            raise ConnectionError(str(error)) from None

    def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _connect(self) -> Any:
        client = self._paho.Client(self._paho.CallbackAPIVersion.VERSION2)
        if self._parts.username is not None:
            password = unquote(self._parts.password or "")
            client.username_pw_set(unquote(self._parts.username), password)
        if self._secure:
            client.tls_set()
        client.connect(self._host, self._port)
        client.loop_start()
        return client


def _import_paho() -> Any:
    with optional_packages("--mqtt"):
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

"""The queue and thread behind webhooks and MQTT."""

from __future__ import annotations

import threading
import time
from typing import Any

from taidpt.runtime.sinks.background import BackgroundSender
from tests.runtime.sinks.senders import QUICK, wait_for


def test_records_wait_for_a_receiver_that_comes_back() -> None:
    arrived: list[int] = []
    away = threading.Event()

    def send(record: dict[str, Any]) -> None:
        if not away.is_set():
            raise OSError("away")
        arrived.append(record["n"])

    sender = BackgroundSender("test", send, QUICK)
    for number in range(50):
        sender.put({"n": number})
    time.sleep(0.2)
    assert arrived == []
    away.set()
    assert wait_for(lambda: len(arrived) == 50)
    sender.close()
    assert arrived == list(range(50))
    assert sender.lost == 0

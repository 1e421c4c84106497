"""Published weights that cannot be had are refused before the hub's client retries for a minute."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from taidpt.clip import download
from taidpt.clip.download import check_available
from taidpt.clip.source import resolve_source
from taidpt.runtime.errors import InputError

TAG = ("RN50-quickgelu", "openai")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        yield server


def endpoint(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")


def test_a_host_that_refuses_is_named(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    port = listener.getsockname()[1]
    listener.close()
    endpoint(monkeypatch, port)
    with pytest.raises(InputError, match=r"weights openai of RN50.* refused.*--pretrained"):
        resolve_source(*TAG)


def test_a_host_that_answers_is_not_asked_for_more(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    endpoint(monkeypatch, listener.getsockname()[1])
    check_available(*TAG)


def test_a_name_that_is_looked_up_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_ANSWER_SECONDS", 0.05)

    def hang(*_: Any) -> None:
        time.sleep(1)  # in the thread that looks the name up
        raise OSError("too late")

    monkeypatch.setattr(socket, "create_connection", hang)
    with pytest.raises(InputError, match=r"does not answer within 0\.05 s"):
        check_available(*TAG)


def test_the_proxy_is_asked_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://nowhere.invalid")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
    check_available(*TAG)


def test_cached_weights_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://nowhere.invalid")
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *_: str(tmp_path / "weights")
    )
    check_available(*TAG)

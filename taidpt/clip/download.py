"""Published weights: from a cache on this machine, or by a download."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from taidpt.runtime.errors import InputError

__all__ = ["check_available", "fetch_weights", "quiet"]

# The hub's client retries an unreachable host for more than a minute. A host that answers does so
# within a few tenths of a second, so that a second without an answer is taken as none.
_ANSWER_SECONDS = 1.0


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress log lines of open_clip and the hub: our errors repeat what matters."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def fetch_weights(name: str, tag: str) -> Path:
    """The weight file of open_clip's model `name` and its tag, downloaded if it is not here.

    Raises:
        InputError: it cannot be fetched.
    """
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    check_available(name, tag)
    try:
        with quiet():
            return Path(download_pretrained(get_pretrained_cfg(name, tag)))
    except Exception as error:
        raise _not_fetched(name, tag, " ".join(str(error).split())[:160]) from error


def check_available(name: str, tag: str) -> None:
    """Raise InputError within about a second if weights are neither here nor to be had."""
    from open_clip.pretrained import get_pretrained_cfg

    settings = get_pretrained_cfg(name, tag)
    if "file" in settings or _is_cached(settings):
        return
    import huggingface_hub.constants as hub

    if settings.get("hf_hub") and hub.HF_HUB_OFFLINE:
        raise _not_fetched(name, tag, "the hub's client is offline by HF_HUB_OFFLINE")
    address = hub.ENDPOINT if settings.get("hf_hub") else settings["url"]
    problem = _unreachable(address)
    if problem:
        raise _not_fetched(name, tag, f"{urlsplit(address).hostname} {problem}")


def _not_fetched(name: str, tag: str, reason: str) -> InputError:
    return InputError(
        f"weights {tag} of {name} are not here and could not be fetched ({reason}); give a local "
        "file as --pretrained instead"
    )


def _is_cached(settings: dict[str, Any]) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from open_clip.constants import HF_WEIGHTS_NAME

    repository, _, name = str(settings.get("hf_hub", "")).rpartition("/")
    if repository:
        name = name or HF_WEIGHTS_NAME
        stem = name.rpartition(".")[0]
        # open_clip prefers safetensors of the same or of its newer name
        names = (name, f"{stem}.safetensors", "open_clip_model.safetensors")
        return any(isinstance(try_to_load_from_cache(repository, item), str) for item in names)
    file = Path("~/.cache/clip").expanduser() / Path(str(settings.get("url", ""))).name
    return file.is_file()


def _unreachable(address: str) -> str:
    """Why an address, or the proxy on the way to it, cannot be reached; "" if it can."""
    url = urlsplit(address)
    proxy = getproxies().get(url.scheme)
    if proxy and not proxy_bypass(url.hostname or ""):
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = url.port or (80 if url.scheme == "http" else 443)
    problems = [f"does not answer within {_ANSWER_SECONDS:g} s"]

    def connect() -> None:  # in a thread, because looking up a name has no time limit
        try:
            socket.create_connection((url.hostname, port), _ANSWER_SECONDS).close()
            problems[0] = ""
        except OSError as error:
            problems[0] = f"cannot be reached: {error.strerror or error}"

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    return problems[0]

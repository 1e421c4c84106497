"""Hardware decoders of video, through PyAV: which of them may exist, and opening a file with one.

FFmpeg has no decoder for a Jetson's own hardware; use a `gst:` pipeline there.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError, MissingDependencyError

__all__ = ["AUTO", "SOFTWARE", "likely_devices", "open_decoding"]

_LOG = logging.getLogger("taidpt.runtime")

AUTO, SOFTWARE = "auto", "software"
# The device file of each kind; kinds without one are not tried.
_DEVICE_FILES = {"cuda": "/dev/nvidia0", "vaapi": "/dev/dri/renderD128"}


def likely_devices() -> list[str]:
    """Kinds of devices that `auto` tries: FFmpeg supports them, and the system has one."""
    kinds = [kind for kind, path in _DEVICE_FILES.items() if Path(path).exists()]
    if sys.platform == "darwin":
        kinds.append("videotoolbox")
    built_in = _built_in()
    return [kind for kind in kinds if kind in built_in]


def open_decoding(
    decoder: str,
    open_container: Callable[..., Any],
    name: str,
    likely: Sequence[str] | None = None,
) -> Any:
    """Open a container for a decoder.

    Args:
        decoder: "auto" uses a device that works, else software, with a line in the log if a
            device exists and does not work; "software"; or a kind of device, "cuda" or "vaapi",
            which fails if it does not work.
        open_container: called with `hwaccel=` for a device, and without it for software.
        name: the source's name, without credentials.
        likely: the kinds that "auto" tries; None asks the system.
    Raises:
        InputError: the chosen device does not decode this video here.
        MissingDependencyError: this PyAV has no hardware decoders.
    """
    if decoder == SOFTWARE:
        return open_container()
    if decoder != AUTO:
        return _open_on(decoder, open_container)
    for kind in likely_devices() if likely is None else likely:
        reason = _start_error(kind)
        if reason is None:
            container = open_container(hwaccel=_accelerator(kind, fall_back=True))
            _LOG.info("%s: decoded by %s if it supports the format", name, kind)
            return container
        _LOG.warning("%s: decoded in software, because %s does not start: %s", name, kind, reason)
    return open_container()


def _open_on(kind: str, open_container: Callable[..., Any]) -> Any:
    built_in = _built_in()
    if not built_in:
        raise MissingDependencyError(
            "this PyAV has no hardware decoders; pip install 'av>=17', or --decoder software"
        )
    hint = f"; this PyAV has {', '.join(built_in)}; --decoder software decodes on the CPU"
    if kind not in built_in:
        raise InputError(f"no decoder {kind!r}{hint}")
    reason = _start_error(kind)
    if reason is not None:
        raise InputError(f"the decoder {kind} does not start here: {reason}{hint}")
    try:
        return open_container(hwaccel=_accelerator(kind, fall_back=False))
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(f"{kind} does not decode this format: {error}{hint}") from None


def _start_error(kind: str) -> str | None:
    """Why a device does not start; None if it does."""
    import av

    try:
        _accelerator(kind, fall_back=False).create(av.Codec("h264", "r"))
    except (OSError, RuntimeError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def _accelerator(kind: str, fall_back: bool) -> Any:
    from av.codec.hwaccel import HWAccel

    return HWAccel(kind, allow_software_fallback=fall_back)


def _built_in() -> list[str]:
    try:
        from av.codec.hwaccel import hwdevices_available
    except ImportError:
        return []
    return [str(kind) for kind in hwdevices_available()]

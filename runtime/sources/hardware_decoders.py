"""Hardware decoders of video, through PyAV: which of them may be here, and opening a file with one.

A Jetson's own decoder is not among FFmpeg's: there `gst:` pipelines have it.
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
# Where a device of a kind shows itself, so that others are not tried.
_SIGNS = {"cuda": "/dev/nvidia0", "vaapi": "/dev/dri/renderD128"}


def likely_devices() -> list[str]:
    """Kinds of devices that `auto` tries: FFmpeg has them, and the system shows one."""
    found = [kind for kind, sign in _SIGNS.items() if Path(sign).exists()]
    if sys.platform == "darwin":
        found.append("videotoolbox")
    built_in = _built_in()
    return [kind for kind in found if kind in built_in]


def open_decoding(
    decoder: str,
    open_container: Callable[..., Any],
    name: str,
    likely: Sequence[str] | None = None,
) -> Any:
    """Open a container whose video is decoded as asked.

    Args:
        decoder: "auto" takes a device that works, else software with a line in the log where a
            device was there; "software"; or a kind of device, "cuda" or "vaapi", which works or
            fails.
        open_container: called with `hwaccel=` for a device, and without for software.
        name: of the source, without credentials.
        likely: what "auto" tries; None asks the system.
    Raises:
        InputError: the device was asked for and does not decode this here; without the name.
        MissingDependencyError: this PyAV knows no hardware decoders.
    """
    if decoder == SOFTWARE:
        return open_container()
    if decoder != AUTO:
        return _open_on(decoder, open_container)
    for kind in likely_devices() if likely is None else likely:
        reason = _why_not(kind)
        if reason is None:
            container = open_container(hwaccel=_accelerator(kind, fall_back=True))
            _LOG.info("%s: decoded by %s where it knows the format", name, kind)
            return container
        _LOG.warning("%s: decoded in software, because %s does not start: %s", name, kind, reason)
    return open_container()


def _open_on(kind: str, open_container: Callable[..., Any]) -> Any:
    built_in = _built_in()
    if not built_in:
        raise MissingDependencyError(
            "this PyAV has no hardware decoders; pip install 'av>=14', or --decoder software"
        )
    hint = f"; this PyAV has {', '.join(built_in)}; --decoder software decodes on the CPU"
    if kind not in built_in:
        raise InputError(f"no decoder {kind!r}{hint}")
    reason = _why_not(kind)
    if reason is not None:
        raise InputError(f"the decoder {kind} does not start here: {reason}{hint}")
    try:
        return open_container(hwaccel=_accelerator(kind, fall_back=False))
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(f"{kind} does not decode this format: {error}{hint}") from None


def _why_not(kind: str) -> str | None:
    """Why a device does not start, or None when it does."""
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

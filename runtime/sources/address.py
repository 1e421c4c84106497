"""What the text of a source means: file, folder, pipe, camera, network stream or pipeline.

This is the only place that decides it. Everything else takes an `Address`.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from taidpt.runtime.errors import InputError
from taidpt.runtime.redact import protect, redact

__all__ = ["Address", "Kind", "ffmpeg_url", "local_path", "other_scheme", "parse_address"]

_NETWORK = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "tcp", "udp", "rtp", "srt")
_OTHERS = ("file", "csi", "argus", "v4l2")
_CAMERA = "/dev/video"
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://(?P<rest>.*)", re.DOTALL)
_STDIN = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_SENSOR = "gst:nvarguscamerasrc sensor-id={0} ! nvvidconv ! video/x-raw"


class Kind(Enum):
    """The kinds of sources that a text can name."""

    FILE = "file"
    FOLDER = "folder"
    PIPE = "pipe"  # standard input or a FIFO: read once, from its start
    CAMERA = "camera"
    NETWORK = "network"
    PIPELINE = "pipeline"


@dataclass(frozen=True)
class Address:
    """A source's kind and location.

    Attributes:
        kind: what it is.
        text: the path, the URL with its scheme in lower case, or the pipeline without `gst:`.
    """

    kind: Kind
    text: str

    @property
    def name(self) -> str:
        """The text for results, logs and errors: a path as it is, others without credentials."""
        if self.kind in (Kind.FILE, Kind.FOLDER, Kind.PIPE):
            return self.text
        return redact(f"gst:{self.text}" if self.kind is Kind.PIPELINE else self.text)


def parse_address(text: str) -> Address:
    """Decide what a text means.

    A path that exists is a path, whatever it looks like. Files are looked at, but not read.

    Raises:
        InputError: there is no such file, its scheme is unknown, or another form is meant, which
            the message then suggests.
    """
    protect(text)
    if not text:
        raise InputError("a source has no name; give a picture, a folder, a video or a stream")
    if text.startswith("gst:"):
        return Address(Kind.PIPELINE, text.removeprefix("gst:").strip())
    if text in _STDIN:
        return _standard_input(text)
    match = _SCHEME.match(text)
    if match is None:
        camera = text.startswith(_CAMERA)
        return Address(Kind.CAMERA, text) if camera else _parse_path(text)
    scheme, rest = match["scheme"].lower(), match["rest"]
    if scheme in _NETWORK:
        return Address(Kind.NETWORK, f"{scheme}://{rest}")
    if scheme == "file":
        return _parse_path(_file_url_path(text, rest))
    if scheme in ("csi", "argus"):
        raise InputError(f"{text}: for a CSI camera give '{_SENSOR.format(rest.strip('/') or 0)}'")
    if scheme == "v4l2":
        raise InputError(f"{text}: for a camera give its device, {_CAMERA}0")
    raise InputError(f"{redact(text)}: unknown scheme; try rtsp://, http://, file:// or a path")


def other_scheme(text: str) -> str | None:
    """The scheme of an address that `parse_address` does not know, such as the `s3` of s3://…."""
    match = _SCHEME.match(text)
    known = match is None or match["scheme"].lower() in (*_NETWORK, *_OTHERS)
    return None if match is None or known or os.path.exists(text) else match["scheme"]  # noqa: PTH110


def ffmpeg_url(address: Address) -> str:
    """The address as FFmpeg reads it.

    Paths get the prefix `file:`, because FFmpeg takes what stands before a colon for a protocol.
    """
    if address.kind in (Kind.NETWORK, Kind.CAMERA):
        return address.text
    return f"file:{'/dev/stdin' if address.text == '-' else address.text}"


def local_path(text: str) -> str:
    """The path that a source's text names: of a file:// address its path, else the text.

    Raises:
        InputError: the address is not of a file on this machine.
    """
    match = _SCHEME.match(text)
    is_url = match is not None and match["scheme"].lower() == "file"
    return _file_url_path(text, match["rest"]) if match is not None and is_url else text


def _standard_input(text: str) -> Address:
    if sys.stdin is None or sys.stdin.closed:
        raise InputError(f"{text}: standard input is closed; send a picture or a video through it")
    if sys.stdin.isatty():
        raise InputError(
            f"{text}: standard input is a terminal; send a picture or a video through a pipe"
        )
    return Address(Kind.PIPE, text)


def _file_url_path(text: str, rest: str) -> str:
    """The path of `file://[localhost]/path`, whose bytes may be written as %20 and the like."""
    host, slash, path = rest.partition("/")
    if not slash or host.lower() not in ("", "localhost"):
        raise InputError(
            f"{text}: a file:// address needs an absolute path on this machine: file:///folder/name"
        )
    return unquote(f"/{path}", errors="surrogateescape")


def _parse_path(text: str) -> Address:
    try:
        status = os.stat(text)  # noqa: PTH116 - takes a text with any bytes, and follows links
    except FileNotFoundError:
        raise InputError(f"{text}: no such file or folder{_hint(text)}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{text}: cannot be opened: {_reason(error)}") from None
    if stat.S_ISDIR(status.st_mode):
        return Address(Kind.FOLDER, text)
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode):
        return Address(Kind.PIPE, text)
    device = os.path.realpath(text)
    if stat.S_ISCHR(status.st_mode) and device.startswith(_CAMERA):  # such as /dev/v4l/by-id/…
        return Address(Kind.CAMERA, device)
    if status.st_size == 0 and not text.startswith(("/proc/", "/dev/fd/")):
        raise InputError(f"{text}: the file is empty")
    return Address(Kind.FILE, text)


def _hint(text: str) -> str:
    if text.isascii() and text.isdigit():
        return f"; for a camera give its device, {_CAMERA}{int(text)}"
    return ""


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

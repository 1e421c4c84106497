"""Opens whatever the user names as a source; the only module that knows every kind of source."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import Source, SourceOptions
from taidpt.runtime.sources.combined import RegionSource
from taidpt.runtime.sources.pictures import ArraySource, ImageSource

__all__ = ["open_source"]


def open_source(
    spec: str | Path | npt.NDArray[Any] | Iterable[npt.NDArray[Any]],
    options: SourceOptions | None = None,
) -> Source:
    """Open whatever the user named.

    Args:
        spec: a picture, a folder of pictures, a video file; a stream's URL (rtsp, http, …), a
            camera (/dev/video0), or a GStreamer pipeline (`gst:v4l2src ! videoconvert`); or one
            array [H, W, 3], a batch [N, H, W, 3], or an iterable of arrays.
        options: which frames are wanted, and which part of them.
    Raises:
        InputError: there is no such thing, or it cannot be opened as any of these.
    """
    options = options or SourceOptions()
    source = _open_any(spec, options)
    return source if options.roi is None else RegionSource(source, options.roi)


def _open_any(spec: Any, options: SourceOptions) -> Source:
    if isinstance(spec, (str, Path)):
        return _open_text(str(spec), options)
    if isinstance(spec, np.ndarray):
        return ArraySource(spec if spec.ndim == 4 else spec[None], options)
    if isinstance(spec, Iterable):
        return ArraySource(spec, options)
    raise InputError(f"cannot take frames from {type(spec).__qualname__}")


def _open_text(text: str, options: SourceOptions) -> Source:
    if text.startswith("gst:"):
        from taidpt.runtime.sources.gstreamer_pipeline import open_pipeline

        return open_pipeline(text, options)
    if "://" in text or text.startswith("/dev/video"):
        return _open_url(text, options)
    return _open_path(text, options)


def _open_url(text: str, options: SourceOptions) -> Source:
    from taidpt.runtime.redact import redact
    from taidpt.runtime.sources.live_stream import LiveSource, is_live_url

    if text.startswith("file://"):
        return _open_path(text.removeprefix("file://"), options)
    if not is_live_url(text):
        raise InputError(f"{redact(text)}: unknown scheme; try rtsp://, http://, file:// or a path")
    source = LiveSource(text, options)
    if not source.finite:
        return source
    source.close()
    from taidpt.runtime.sources.video_file import VideoSource

    return VideoSource(text, options)


def _open_path(text: str, options: SourceOptions) -> Source:
    if not text:
        raise InputError("a source has no name; give a picture, a folder, a video or a stream")
    path = Path(text)
    if os.path.isdir(path):  # noqa: PTH112 - Path's raises where a folder above may not be searched
        return ImageSource(text, _pictures(path, options.recursive), options)
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except FileNotFoundError:
        raise InputError(f"{text}: no such file or folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{text}: cannot be opened: {_reason(error)}") from None
    if empty:
        raise InputError(f"{text}: the file is empty")
    return _open_file(path, options)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _open_file(path: Path, options: SourceOptions) -> Source:
    from taidpt.runtime.sources.picture_files import is_image

    if is_image(path):
        return ImageSource(str(path), [path], options)
    from taidpt.runtime.sources.video_file import VideoSource

    return VideoSource(str(path), options)


def _pictures(folder: Path, recursive: bool) -> list[Path]:
    from taidpt.runtime.sources.picture_files import IMAGE_SUFFIXES

    found = folder.rglob("*") if recursive else folder.iterdir()
    try:
        paths = sorted(
            path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        )
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {_reason(error)}") from None
    if not paths:
        hint = "" if recursive else "; --recursive looks into its folders"
        raise InputError(f"{folder}: no pictures in this folder{hint}")
    return paths

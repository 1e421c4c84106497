"""Opens whatever the user names as a source; the only module that knows every kind of source."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.address import Address, Kind, parse_address
from taidpt.runtime.sources.base import LOG, Source, SourceOptions
from taidpt.runtime.sources.combined import MergedSource, RegionSource
from taidpt.runtime.sources.picture_files import IMAGE_SUFFIXES
from taidpt.runtime.sources.pictures import ArraySource, ImageSource

__all__ = ["MEDIA_SUFFIXES", "list_sources", "media_files", "open_source"]

# fmt: off
_VIDEO_SUFFIXES = frozenset([
    ".265", ".3gp", ".asf", ".avi", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mjpeg",
    ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm",
    ".wmv", ".y4m",
])
# fmt: on
MEDIA_SUFFIXES = _VIDEO_SUFFIXES | IMAGE_SUFFIXES
# Names of left-out files that a warning gives as examples: enough to see what kind they are.
_EXAMPLES = 3


def open_source(
    spec: str | Path | npt.NDArray[Any] | Iterable[npt.NDArray[Any]],
    options: SourceOptions | None = None,
) -> Source:
    """Open whatever the user names.

    Args:
        spec: a picture, a video file, or a folder of them; `-` or a FIFO, from which a picture or
            a video is read; a stream's URL (rtsp, http, …), a camera (/dev/video0), or a GStreamer
            pipeline (`gst:v4l2src ! videoconvert`); or one array [H, W, 3], a batch
            [N, H, W, 3], or an iterable of arrays.
        options: which frames are used, and which part of them.
    Raises:
        InputError: there is no such thing, or it cannot be opened as any of these.
    """
    options = options or SourceOptions()
    if isinstance(spec, (str, Path)):
        sources = list_sources([str(spec)], options)
        source = sources[0] if len(sources) == 1 else MergedSource(sources, 1)
    elif isinstance(spec, np.ndarray):
        source = _with_roi(ArraySource(spec if spec.ndim == 4 else spec[None], options), options)
    elif isinstance(spec, Iterable):
        source = _with_roi(ArraySource(spec, options), options)
    else:
        raise InputError(f"cannot take frames from {type(spec).__qualname__}")
    source.open()
    return source


def list_sources(texts: Sequence[str], options: SourceOptions) -> list[Source]:
    """The sources of a list of texts, each opened only when its turn comes.

    Every text is looked at now: whether it exists, and what it is. Streams and cameras are opened,
    because whether they are live is known only then. Several pictures are one source; a folder is
    its pictures and its videos.

    Raises:
        InputError: a text names nothing, or a stream or camera cannot be opened.
    """
    addresses = [parse_address(text) for text in texts]
    files = [Path(address.text) for address in addresses if address.kind is Kind.FILE]
    if 1 < len(files) == len(addresses) and all(map(_is_picture, files)):
        return [_with_roi(ImageSource(f"{len(files)} pictures", files, options), options)]
    sources: list[Source] = []
    try:
        for address in addresses:
            sources += _sources_of(address, options)
    except BaseException:
        for source in sources:
            source.close()
        raise
    return [_with_roi(source, options) for source in sources]


def _with_roi(source: Source, options: SourceOptions) -> Source:
    return source if options.roi is None else RegionSource(source, options.roi)


def _sources_of(address: Address, options: SourceOptions) -> list[Source]:
    if address.kind is Kind.FOLDER:
        return _folder(Path(address.text), options)
    if address.kind in (Kind.FILE, Kind.PIPE):
        return [_file(address, options)]
    if address.kind is Kind.PIPELINE:
        from taidpt.runtime.sources.gstreamer_pipeline import open_pipeline

        return [open_pipeline(address, options)]
    from taidpt.runtime.sources.live_stream import LiveSource
    from taidpt.runtime.sources.video_file import VideoSource

    source = LiveSource(address, options)
    if not source.finite:
        return [source]
    source.close()
    return [VideoSource(address, options)]


def _file(address: Address, options: SourceOptions) -> Source:
    if address.kind is Kind.FILE and _is_picture(Path(address.text)):
        return ImageSource(address.name, [Path(address.text)], options)
    from taidpt.runtime.sources.video_file import VideoSource

    return VideoSource(address, options)


def _is_picture(path: Path) -> bool:
    """Whether a file is a picture; MJPEG videos begin like one."""
    from taidpt.runtime.sources.picture_files import is_image

    return path.suffix.lower() not in _VIDEO_SUFFIXES and is_image(path)


def _folder(folder: Path, options: SourceOptions) -> list[Source]:
    """The pictures of a folder as one source, then each of its videos."""
    from taidpt.runtime.sources.video_file import VideoSource

    pictures, videos = media_files(folder, options.recursive)
    sources: list[Source] = [ImageSource(str(folder), pictures, options)] if pictures else []
    sources += [VideoSource(Address(Kind.FILE, str(path)), options) for path in videos]
    return sources


def media_files(folder: Path, recursive: bool) -> tuple[list[Path], list[Path]]:
    """The pictures and the videos of a folder, each sorted; a warning says what is left out.

    Raises:
        InputError: the folder cannot be read, or holds none of either.
    """
    files, left_out = _walk(folder, recursive)
    pictures, videos, others = [], [], []
    for path in files:
        if _is_picture(path):
            pictures.append(path)
        elif path.suffix.lower() in _VIDEO_SUFFIXES:
            videos.append(path)
        else:
            others.append(path.name)
    _warn_of_left_out(folder, {"files that are not pictures or videos": others, **left_out})
    if not pictures and not videos:
        hint = "" if recursive else "; --recursive looks into its folders"
        raise InputError(f"{folder}: no pictures or videos in this folder{hint}")
    return pictures, videos


def _walk(folder: Path, recursive: bool) -> tuple[list[Path], dict[str, list[str]]]:
    """The files of a folder, sorted, and the names of folders that are not looked into."""

    def fail(error: OSError) -> None:
        raise InputError(f"{folder}: cannot be read: {error.strerror or error}")

    files: list[Path] = []
    linked: list[str] = []
    inner: list[str] = []
    for top, folders, names in os.walk(folder, onerror=fail):
        files += [path for name in names if (path := Path(top, name)).is_file()]
        linked += [name for name in folders if Path(top, name).is_symlink()]
        if not recursive:
            inner = [name for name in folders if name not in linked]
            folders.clear()
    return sorted(files), {"linked folders": linked, "folders, without --recursive": inner}


def _warn_of_left_out(folder: Path, left_out: Mapping[str, Sequence[str]]) -> None:
    parts = []
    for what, names in left_out.items():
        if names:
            more = ", …" if len(names) > _EXAMPLES else ""
            parts.append(f"{len(names)} {what} ({', '.join(sorted(names)[:_EXAMPLES])}{more})")
    if parts:
        LOG.warning("%s: left out: %s", folder, "; ".join(parts))

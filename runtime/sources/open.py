"""Where frames come from: pictures, folders, videos, arrays. One interface for all of them.

A source is iterated once, hands out frames in order, and is closed by `with` or at its end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import InputError
from taidpt.runtime.stages import Merge

__all__ = [
    "ArraySource",
    "Frame",
    "ImageSource",
    "MergedSource",
    "RegionSource",
    "Selector",
    "Source",
    "SourceOptions",
    "open_source",
]

_LOG = logging.getLogger("taidpt.runtime")


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        image: uint8 RGB [H, W, 3], upright; pictures may be grey, RGBA or 16-bit. NV12
            [H · 3/2, W] where the bundle takes that.
        time_s: seconds on the source's own clock, from its start; None for pictures.
        index: counts the source's frames from 0, those that were left out included.
        source: what it comes from, without credentials: a path, a URL, "array".
        decode_s: seconds of work that it took, without waiting for a camera; None unless known.
        colours: matrix and range of NV12; None of all else.
    """

    image: npt.NDArray[Any]
    time_s: float | None
    index: int
    source: str
    decode_s: float | None = None
    colours: tuple[str, str] | None = None

    @property
    def picture(self) -> npt.NDArray[Any]:
        """The frame for people to look at: never NV12."""
        if self.colours is None:
            return self.image
        from taidpt.runtime.sources.frame_converter import nv12_picture

        return nv12_picture(self.image, self.colours)

    def __repr__(self) -> str:
        time = "" if self.time_s is None else f" at {self.time_s:.3f} s"
        height, width = self.image.shape[:2]
        size = f"{width}x{height if self.colours is None else height * 2 // 3}"
        return f"Frame({self.index}{time}, {size}, {self.source!r})"


@dataclass(frozen=True)
class SourceOptions:
    """Which frames of a source are wanted.

    Attributes:
        recursive: look into the folders of a folder too.
        every: take each `every`-th frame.
        max_fps: take no more frames a second than this; None takes all. Pictures are not limited.
        fps: frames a second of arrays, which carry no time themselves; None gives no times.
        roi: x, y, width, height of the part of each frame that is used, in pixels.
        colours: matrix and range of the NV12 frames that a bundle takes (`InputSpec.colours`):
            videos and streams give NV12 then; None gives RGB.
        decoder: of videos and streams: "auto" takes a hardware decoder that works and logs which;
            "software"; "cuda", "vaapi" and others work or fail.
    """

    recursive: bool = False
    every: int = 1
    max_fps: float | None = None
    fps: float | None = None
    roi: tuple[int, int, int, int] | None = None
    colours: tuple[str, str] | None = None
    decoder: str = "auto"

    def __post_init__(self) -> None:
        if self.roi is not None and self.colours is not None:
            raise InputError("a roi cannot be cut out of NV12 frames; export for RGB frames")
        if self.every < 1:
            raise InputError(f"every should be at least 1, got {self.every}")
        for name, rate in (("max_fps", self.max_fps), ("fps", self.fps)):
            if rate is not None and not rate > 0:
                raise InputError(f"{name} should be above 0, got {rate}")
        if self.roi is not None and (min(self.roi[:2]) < 0 or min(self.roi[2:]) < 1):
            raise InputError(f"roi should be x,y,width,height, got {_comma(self.roi)}")


class Selector:
    """Says of each frame, before it is converted, whether it is wanted."""

    def __init__(self, options: SourceOptions) -> None:
        self._every = options.every
        self._period = None if options.max_fps is None else 1.0 / options.max_fps
        self._due = -np.inf

    def wants(self, index: int, time_s: float | None) -> bool:
        """Whether to take frame `index`; to be asked once a frame, in order."""
        if index % self._every:
            return False
        if self._period is None or time_s is None:
            return True
        if time_s + 1e-6 < self._due:
            return False
        # keep the beat, so that 25 frames a second thinned to 10 are 10 and not 8.3
        next_beat = self._due + self._period
        self._due = next_beat if next_beat > time_s else time_s + self._period
        return True


class Source(Closing):
    """Base of all sources: iterate it once.

    Attributes:
        name: what it is, without credentials.
        live: frames come by the clock and may be dropped; files never drop.
        threaded: whether another thread may read it ahead.
        reads_ahead: whether it does so itself, in threads of its own.
        dropped: frames that it dropped itself.
        total: about how many frames it will give, or None when nobody knows.
    """

    name = "source"
    live = False
    threaded = True
    reads_ahead = False
    dropped = 0
    total: int | None = None

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, in order."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of files and devices; may be called twice."""

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class ImageSource(Source):
    """Picture files, in the order given.

    One that cannot be read is named in the log and passed over; at the end that is an InputError.
    A single picture fails at once.

    Attributes:
        wanted: the pictures that it will give, but for those that cannot be read.
    """

    def __init__(self, name: str, paths: list[Path], options: SourceOptions) -> None:
        self.name = name
        self._paths = paths
        self._selector = Selector(options)
        self.wanted = tuple(paths[:: options.every])
        self.total = len(self.wanted)

    def frames(self) -> Iterator[Frame]:
        """Read the pictures one by one."""
        from taidpt.runtime.sources.picture_files import read_image

        unread: list[str] = []
        for index, path in enumerate(self._paths):
            if not self._selector.wants(index, None):
                continue
            try:
                image = read_image(path)
            except InputError as error:
                if len(self._paths) == 1:
                    raise
                _LOG.warning("passed over: %s", error)
                unread.append(str(path))
                continue
            yield Frame(image, None, index, str(path))
        if unread:
            raise InputError(
                f"{self.name}: {len(unread)} of {len(self._paths)} pictures could not be read, "
                f"the first is {unread[0]}; the others were used"
            )


class ArraySource(Source):
    """Arrays from an iterable, taken in the thread that asks for them."""

    name = "array"
    threaded = False

    def __init__(self, arrays: Iterable[npt.NDArray[Any]], options: SourceOptions) -> None:
        self._arrays = arrays
        self._fps = options.fps
        self._selector = Selector(options)
        with contextlib.suppress(TypeError):
            self.total = -(-len(arrays) // options.every)  # type: ignore[arg-type]

    def frames(self) -> Iterator[Frame]:
        """Number the arrays, and time them when the options give a rate."""
        for index, array in enumerate(self._arrays):
            time_s = None if self._fps is None else index / self._fps
            if self._selector.wants(index, time_s):
                yield Frame(array, time_s, index, self.name)


class RegionSource(Source):
    """A part of each frame of another source."""

    def __init__(self, source: Source, roi: tuple[int, int, int, int]) -> None:
        self.name, self.live, self.threaded = source.name, source.live, source.threaded
        self.total = source.total
        self._source, self._roi = source, roi

    def frames(self) -> Iterator[Frame]:
        """Cut the part out of each frame; InputError when it does not lie inside."""
        x, y, width, height = self._roi
        for frame in self._source:
            rows, columns = frame.image.shape[:2]
            if x + width > columns or y + height > rows:
                raise InputError(
                    f"{self.name}: the roi {_comma(self._roi)} does not lie inside the frame of "
                    f"{columns}x{rows}"
                )
            part = frame.image[y : y + height, x : x + width]
            yield dataclasses.replace(frame, image=part)

    def close(self) -> None:
        """Close the other source."""
        self._source.close()


class MergedSource(Source):
    """Several sources at once: each is read in a thread of its own, their frames take turns.

    Where none is live the order of frames is the same in every run. A source that fails is
    named in the log and the others go on; when all have ended, the first failure is raised.
    """

    reads_ahead = True

    def __init__(self, sources: list[Source], at_once: int | None = None) -> None:
        """Read the sources, `at_once` of them at a time where none is live; None reads all."""
        self.name = f"{len(sources)} sources"
        self._at_once = at_once
        self.live = any(source.live for source in sources)
        self._sources = sources
        self._merge: Merge[Frame] | None = None
        names = [source.name for source in sources]
        # the same camera twice (two regions of it, say) must not share its events
        self._labels = [
            name if names.index(name) == number else f"{name} ({names[: number + 1].count(name)})"
            for number, name in enumerate(names)
        ]
        totals = [source.total for source in sources]
        known = [total for total in totals if total is not None]
        self.total = sum(known) if len(known) == len(totals) else None

    def frames(self) -> Iterator[Frame]:
        """Frames of all sources, each source's in order."""
        failures: list[Exception] = []

        def report(number: int, error: Exception) -> None:
            failures.append(error)
            _LOG.warning("ended: %s", error)

        live = [source.live for source in self._sources]
        named = [
            self._named(source, label)
            for source, label in zip(self._sources, self._labels, strict=True)
        ]
        self._merge = Merge(named, live, report, None if self.live else self._at_once)
        yield from self._merge
        if failures:
            raise failures[0]

    @property
    def dropped(self) -> int:  # type: ignore[override]  # counted where it happens
        """Frames of live sources that were dropped, because newer ones had come."""
        return 0 if self._merge is None else self._merge.dropped

    @staticmethod
    def _named(source: Source, label: str) -> Iterator[Frame]:
        for frame in source:
            renamed = label != source.name
            yield dataclasses.replace(frame, source=label) if renamed else frame

    def close(self) -> None:
        """Close all."""
        for source in self._sources:
            source.close()


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


def _comma(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


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

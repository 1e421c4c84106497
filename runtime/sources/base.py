"""What all sources share: frames, options, the choice of frames, and the interface."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import InputError

if TYPE_CHECKING:
    from taidpt.runtime.sources.frame_converter import Scaler, WholePicture

__all__ = [
    "LOG",
    "Frame",
    "Selector",
    "Source",
    "SourceOptions",
    "UnreadError",
    "comma",
    "error_to_raise",
    "refuse_scaler",
]

E = TypeVar("E", bound=Exception)

LOG = logging.getLogger("taidpt.runtime")

# A frame this much earlier than the next beat of `max_fps` is in time: Matroska and FLV round times
# to milliseconds, so that without it 30 frames a second thinned to 30 would be 23.
_EARLY_S = 1e-3


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        image: uint8 RGB [H, W, 3], upright; pictures may be grey, RGBA or 16-bit. NV12
            [H · 3/2, W] for bundles that take it.
        time_s: seconds since the start of the source, on its own clock; None for pictures.
        index: number of the frame in its source from 0, counting frames that were left out.
        source: the path, the URL without credentials, or "array".
        decode_s: seconds of decoding, without waiting for a camera; None if unknown.
        colours: matrix and range of NV12 frames; None for other formats.
        whole: the whole picture, where `image` is what the decoder scaled it to for the model.
    """

    image: npt.NDArray[Any]
    time_s: float | None
    index: int
    source: str
    decode_s: float | None = None
    colours: tuple[str, str] | None = None
    whole: WholePicture | None = None

    @property
    def picture(self) -> npt.NDArray[Any]:
        """The frame for display: the whole image, with NV12 converted to RGB."""
        if self.whole is not None:
            return self.whole()
        if self.colours is None:
            return self.image
        from taidpt.runtime.sources.frame_converter import nv12_picture

        return nv12_picture(self.image, self.colours)

    @property
    def picture_hw(self) -> tuple[int, int]:
        """Height and width of `picture`, in pixels, without making it."""
        if self.whole is not None:
            return self.whole.hw
        height, width = self.image.shape[:2]
        return (height if self.colours is None else height * 2 // 3), width

    def __repr__(self) -> str:
        time = "" if self.time_s is None else f" at {self.time_s:.3f} s"
        height, width = self.picture_hw
        return f"Frame({self.index}{time}, {width}x{height}, {self.source!r})"


@dataclass(frozen=True)
class SourceOptions:
    """Which frames of a source are used, and how they are decoded.

    Attributes:
        recursive: include the folders inside a folder.
        every: use each `every`-th frame.
        max_fps: use at most this many frames a second; None uses all. Pictures are not limited.
        fps: frames a second of arrays, which carry no times themselves; None gives no times.
        roi: x, y, width, height of the part of each frame that is used, in pixels.
        colours: matrix and range of NV12 frames (`InputSpec.source_colours`), which videos and
            streams then yield; None yields RGB.
        scaler: makes what scales the pictures of one video or stream to the model's input
            (`Preprocessor.source_options`); None yields whole frames.
        decoder: of videos and streams. "auto" uses a working hardware decoder and logs which;
            "software"; "cuda", "vaapi" and others fail if they are not available.
        on_packet: called with each encoded packet of PyAV, in the thread that reads the source.

    Raises:
        InputError: a value is out of range, or `roi` is combined with NV12 or a scaler.
    """

    recursive: bool = False
    every: int = 1
    max_fps: float | None = None
    fps: float | None = None
    roi: tuple[int, int, int, int] | None = None
    colours: tuple[str, str] | None = None
    scaler: Callable[[], Scaler] | None = None
    decoder: str = "auto"
    on_packet: Callable[[Any], None] | None = None

    def __post_init__(self) -> None:
        if self.roi is not None and self.colours is not None:
            raise InputError("a roi cannot be cut out of NV12 frames; export for RGB frames")
        if self.roi is not None and self.scaler is not None:
            raise InputError(
                "--resize decoder takes whole frames and no roi; leave one of them out"
            )
        if self.every < 1:
            raise InputError(f"every should be at least 1, got {self.every}")
        for name, rate in (("max_fps", self.max_fps), ("fps", self.fps)):
            if rate is not None and not rate > 0:
                raise InputError(f"{name} should be above 0, got {rate}")
        if self.roi is not None and (min(self.roi[:2]) < 0 or min(self.roi[2:]) < 1):
            raise InputError(f"roi should be x,y,width,height, got {comma(self.roi)}")


class UnreadError(InputError):
    """None of a source's pictures could be read; a warning where another source was used."""


def error_to_raise(failures: Sequence[E], used: bool) -> E | None:
    """The error that ends a run over several sources, of those that ended some of them.

    Args:
        failures: the errors, in order.
        used: whether any frame was used.
    """
    serious = [error for error in failures if not (used and isinstance(error, UnreadError))]
    return serious[0] if serious else None


class Selector:
    """Decides for each frame, before it is converted, whether it is used."""

    def __init__(self, options: SourceOptions) -> None:
        self._every = options.every
        self._period = None if options.max_fps is None else 1.0 / options.max_fps
        self._due = -np.inf

    def wants(self, index: int, time_s: float | None) -> bool:
        """Whether to use frame `index` at `time_s`; call it once a frame, in order."""
        if index % self._every:
            return False
        if self._period is None or time_s is None:
            return True
        if time_s + _EARLY_S < self._due:
            return False
        # keep the beat: 25 frames a second thinned to 10 should be 10, not 8.3
        next_beat = self._due + self._period
        self._due = next_beat if next_beat > time_s else time_s + self._period
        return True


class Source(Closing):
    """Base of all sources: yields frames in order when iterated, once.

    Attributes:
        name: path, URL or description, without credentials.
        live: whether frames arrive by the clock and may be dropped; files never drop frames.
        threaded: whether another thread may read it ahead.
        reads_ahead: whether it reads ahead itself, in threads of its own.
        dropped: frames that it dropped itself.
        total: approximate number of frames, or None if unknown.
    """

    name = "source"
    live = False
    threaded = True
    reads_ahead = False
    dropped = 0
    total: int | None = None

    def open(self) -> None:
        """Open files and devices, and learn `total`; may be called twice.

        Iterating does this too. Sources of a list are opened when their turn comes.

        Raises:
            InputError: the source cannot be opened.
        """

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, in order; the source is open."""
        raise NotImplementedError

    def close(self) -> None:
        """Release files and devices; may be called twice."""

    def __iter__(self) -> Iterator[Frame]:
        """Open, yield all frames, and close."""
        try:
            self.open()
            yield from self.frames()
        finally:
            self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def refuse_scaler(name: str, options: SourceOptions) -> None:
    """Raise InputError where pictures that were never a video are to be scaled by its decoder."""
    if options.scaler is not None:
        raise InputError(
            f"{name}: --resize decoder is for videos and cameras, whose decoder it needs; leave it "
            "out for pictures and arrays"
        )


def comma(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))

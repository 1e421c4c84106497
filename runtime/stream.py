"""A source through a tagger: frames in, moments out (tags, and events when frames have times)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.events import Event, EventMachine, EventSettings, Interval, timeline
from taidpt.runtime.results import Tag, TagResult
from taidpt.runtime.sources import Frame, Source, SourceOptions, open_source

if TYPE_CHECKING:
    from taidpt.runtime.tagger import Tagger

__all__ = ["Moment", "Stream", "StreamInput", "StreamSettings", "open_stream"]

StreamInput = str | Path | Source | npt.NDArray[Any] | Iterable[npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Moment:
    """One frame of a stream, tagged.

    Attributes:
        frame: the decoded frame.
        result: its scores, tags and heatmaps.
        events: tags that went on or off, decided by this frame.
        on: names of the tags that are on after smoothing, in the bundle's order; without times
            the tags that reach their thresholds in this frame.
    """

    frame: Frame
    result: TagResult
    events: tuple[Event, ...]
    on: tuple[str, ...]

    @property
    def time(self) -> float | None:
        """Seconds on the source's clock; None for pictures."""
        return self.frame.time_s

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The frame's own tags, best score first."""
        return self.result.tags

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, without the picture."""
        return {
            "source": self.frame.source,
            "index": self.frame.index,
            "time_s": self.time,
            "on": list(self.on),
            **self.result.to_dict(),
            "events": [event.to_dict() for event in self.events],
        }

    def __repr__(self) -> str:
        return f"Moment({self.frame!r}, on: {', '.join(self.on) or 'nothing'})"


@dataclass(frozen=True)
class StreamSettings:
    """How a stream is run.

    Attributes:
        batch: frames in one run of the graph.
        smoothing_s: time constant of the scores' smoothing, in seconds.
        min_on_s, min_off_s: least durations of a tag and of a gap, in seconds.
    """

    batch: int = 1
    smoothing_s: float = 0.3
    min_on_s: float = 0.2
    min_off_s: float = 0.5

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch should be at least 1, got {self.batch}")

    def event_settings(self, on: npt.NDArray[Any], off: npt.NDArray[Any]) -> EventSettings:
        """With the tags' thresholds, what an EventMachine takes."""
        return EventSettings(on, off, self.smoothing_s, self.min_on_s, self.min_off_s)


class Stream:
    """A running stream: iterate it for moments, once; close it or use it in a `with`.

    Attributes:
        source: where the frames come from.
        machine: smoothing and hysteresis; its state can be saved and loaded.
        last_s: the last frame's time.
    """

    def __init__(self, tagger: Tagger, source: Source, settings: StreamSettings) -> None:
        self.source = source
        self._tagger = tagger
        self._settings = settings
        words = tagger.vocabulary
        self.machine = EventMachine(words.names, settings.event_settings(words.on, words.off))
        self.last_s = 0.0
        self._events: list[Event] = []
        self._stopped = False

    def __iter__(self) -> Iterator[Moment]:
        for frames in self._batches():
            batch = self._tagger.tag_batch([frame.image for frame in frames])
            for frame, result in zip(frames, batch, strict=True):
                yield self._moment(frame, result)

    def stop(self) -> None:
        """End after the frames that were read already; may be called from a signal handler."""
        self._stopped = True

    def timeline(self) -> tuple[Interval, ...]:
        """What was on from when to when, so far."""
        return timeline(self._events, self.last_s)

    def close(self) -> None:
        """Close the source."""
        self.source.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _batches(self) -> Iterator[list[Frame]]:
        """Frames in groups; those read before the source failed come out before its error."""
        waiting: list[Frame] = []
        frames = iter(self.source)
        while not self._stopped:
            try:
                waiting.append(next(frames))
            except StopIteration:
                break
            except InputError:
                if waiting:
                    yield waiting
                raise
            if len(waiting) == self._settings.batch:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _moment(self, frame: Frame, result: TagResult) -> Moment:
        if frame.time_s is None:
            return Moment(frame, result, (), tuple(tag.name for tag in result.on_tags))
        events = self.machine.update([frame.time_s], result.scores[None])
        self._events.extend(events)
        self.last_s = frame.time_s
        names = self._tagger.names
        on = tuple(names[index] for index in self.machine.on.nonzero()[0])
        return Moment(frame, result, tuple(events), on)


def open_stream(
    tagger: Tagger,
    source: StreamInput,
    settings: StreamSettings | None,
    options: Mapping[str, Any],
) -> Stream:
    """Open a source where it is not one yet, and put a tagger behind it.

    Raises:
        InputError: the source cannot be opened, or an option is unknown or wrong.
    """
    if isinstance(source, Source):
        if options:
            raise InputError("an open source has its options already; give them to open_source")
        return Stream(tagger, source, settings or StreamSettings())
    try:
        chosen = SourceOptions(**options)
    except TypeError as error:
        raise InputError(f"unknown option of a stream: {error}") from None
    return Stream(tagger, open_source(source, chosen), settings or StreamSettings())

"""A source through a tagger: frames in, moments out (tags, and events when frames have times).

Reading, preprocessing and inference overlap, each in a thread of its own; the caller's thread does
the rest (events, sinks). Frames keep their order. An error of the source is raised after the
frames that were read before it.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Event, EventMachine, EventSettings, Interval, timeline
from taidpt.runtime.measuring.profile import Profile
from taidpt.runtime.preprocess.preprocessor import Preprocessor, U8Array
from taidpt.runtime.results import TagResult, Vocabulary
from taidpt.runtime.sources.base import Frame, Source, SourceOptions
from taidpt.runtime.sources.open import open_source
from taidpt.runtime.stages import Prefetch
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.stream.still_frames import FrameChange, StillFilter
from taidpt.runtime.top_k import refuse_top

__all__ = [
    "FrameTagger",
    "PreparedFrame",
    "Stream",
    "StreamInput",
    "StreamSettings",
    "open_stream",
]

_LOG = logging.getLogger("taidpt.runtime")

StreamInput = str | Path | Source | npt.NDArray[Any] | Iterable[npt.NDArray[Any]]

# Frames that may wait before each stage, beside a whole batch: one that is ready and one that is
# being made, which evens out a slow frame. More would only add delay to a live stream.
_WAITING = 2


class FrameTagger(Protocol):
    """The five members of a tagger that a stream uses."""

    bundle: Bundle

    @property
    def vocabulary(self) -> Vocabulary:
        """The current tags and thresholds."""

    @property
    def preprocess(self) -> Preprocessor:
        """Converts a frame to the graph's input, uint8 [height, width, 3]."""

    def tag_batch(self, frames: npt.NDArray[Any]) -> Sequence[TagResult]:
        """Tag preprocessed frames, uint8 [N, height, width, 3], in one run."""

    def remember(self, result: TagResult) -> None:
        """Take note of a frame that the stream's source showed."""


@dataclass(frozen=True)
class StreamSettings:
    """Settings of a stream.

    Attributes:
        batch: frames in one run of the graph; a live source does not wait for a whole batch.
        smoothing_s: time constant of the score smoothing, in seconds.
        min_on_s, min_off_s: shortest reported duration of a tag and of a gap, in seconds.
        overlap: whether each stage runs in a thread of its own.
        keep_events: whether events are kept for `timeline`. None keeps the events of files, but
            not those of cameras, which may run for months.
        skip_still: a frame is tagged only if it differs from the last tagged one by more than
            this, in grey levels; None tags all frames. See `taidpt.runtime.stream.still_frames`.
    """

    batch: int = 1
    smoothing_s: float = 0.3
    min_on_s: float = 0.2
    min_off_s: float = 0.5
    overlap: bool = True
    keep_events: bool | None = None
    skip_still: float | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch should be at least 1, got {self.batch}")

    def event_settings(self, on: npt.NDArray[Any], off: npt.NDArray[Any]) -> EventSettings:
        """The settings of an EventMachine with these thresholds, each [C]."""
        return EventSettings(on, off, self.smoothing_s, self.min_on_s, self.min_off_s)


@dataclass(frozen=True, eq=False)
class PreparedFrame:
    """A preprocessed frame; `crop` is None for a still frame, which repeats the last result.

    `ready_s` is the moment at which it was ready, on the clock of `time.perf_counter`.
    """

    frame: Frame
    crop: U8Array | None
    ready_s: float
    change: FrameChange


class _SourceState:
    """Smoothing and events of one source."""

    def __init__(self, machine: EventMachine, vocabulary: Vocabulary) -> None:
        self.machine = machine
        self.vocabulary = vocabulary
        self.events: list[Event] = []
        self.last_s = 0.0


class Stream(Closing):
    """A running stream: iterate it once for moments; close it or use it in a `with`.

    Attributes:
        source: the source of the frames.
        profile: times of each stage.
        stills: the filter of still frames with its counts; None unless `skip_still` is set.
    """

    def __init__(self, tagger: FrameTagger, source: Source, settings: StreamSettings) -> None:
        self.source = source
        self.profile = Profile()
        still = settings.skip_still
        self.stills = None if still is None else StillFilter(still)
        self._tagger = tagger
        self._still_vocabulary = tagger.vocabulary
        self._settings = settings
        self._states: dict[str, _SourceState] = {}
        keep = settings.keep_events
        self._keeps_events = not source.live if keep is None else keep
        self._top_k = tagger.bundle.manifest.graph.top_k
        self._stopped = False
        self._stages: list[Prefetch[Any]] = []

    def __iter__(self) -> Iterator[Moment]:
        try:
            for batch, results in self._tagged():
                for item, result in zip(batch, results, strict=True):
                    with self.profile.timed("post"):
                        moment = self._moment(item, result)
                    yield moment
        finally:
            self._close_stages()

    @property
    def dropped(self) -> int:
        """Frames of a live source that were skipped because newer frames had arrived."""
        return self.source.dropped + sum(stage.dropped for stage in self._stages)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources that have yielded frames with times."""
        return tuple(self._states)

    @property
    def has_events(self) -> bool:
        """Whether events are computed: not for an export with `--top-k`, which drops scores."""
        return self._top_k is None

    def last_s(self, source: str | None = None) -> float:
        """Seconds of the last frame of a source (None: of this stream's own source)."""
        return self._state(self.source.name if source is None else source).last_s

    def machine(self, source: str | None = None) -> EventMachine:
        """Smoothing and hysteresis of a source (None: of this stream's own source).

        Its state can be saved at any time, and loaded before the first frame.

        Raises:
            InputError: the bundle was exported with `--top-k`.
        """
        refuse_top(self._top_k, self._tagger.bundle.path, "an event")
        return self._state(self.source.name if source is None else source).machine

    def stop(self) -> None:
        """Stop after the frames that are already read; safe to call from a signal handler."""
        self._stopped = True
        for stage in self._stages[:1]:
            stage.stop()

    def timeline(self, source: str | None = None) -> tuple[Interval, ...]:
        """Intervals in which tags were on so far, in a source (None: this stream's own source).

        Raises:
            InputError: the bundle was exported with `--top-k`.
        """
        refuse_top(self._top_k, self._tagger.bundle.path, "a timeline")
        state = self._state(self.source.name if source is None else source)
        return timeline(state.events, state.last_s)

    def close(self) -> None:
        """Close the source and end the threads."""
        self._stopped = True
        if self.source.live:
            self.source.close()  # ends a read that waits for a camera
        self._close_stages()
        self.source.close()

    def prepared(self) -> Iterator[PreparedFrame]:
        """Yield preprocessed frames, in place of iterating the stream: nothing is tagged.

        Of the tagger only `bundle`, `vocabulary` and `preprocess` are used.
        """
        size = self._settings.batch + (0 if self.source.live else _WAITING)
        frames = self._read()
        if not self.source.reads_ahead:
            frames = self._stage(frames, size, live=self.source.live, yielding=True)
        return self._stage(self._prepare(frames), size, yielding=True)

    def _tagged(self) -> Iterator[tuple[list[PreparedFrame], Sequence[TagResult]]]:
        """Yield frames with their results, batch by batch."""
        yield from self._stage(self._infer(self._batches(self.prepared())), _WAITING)

    def _stage(
        self, items: Iterator[Any], size: int, live: bool = False, yielding: bool = False
    ) -> Iterator[Any]:
        if not (self._settings.overlap and self.source.threaded):
            return items
        self._stages.append(Prefetch(items, size, live, yielding=yielding))
        return self._stages[-1]

    def _read(self) -> Iterator[Frame]:
        frames = iter(self.source)
        while not self._stopped:
            begun = time.perf_counter()
            try:
                frame = next(frames)
            except StopIteration:
                return
            read_s = time.perf_counter() - begun
            self.profile.add("decode", read_s if frame.decode_s is None else frame.decode_s)
            yield frame

    def _prepare(self, frames: Iterator[Frame]) -> Iterator[PreparedFrame]:
        for frame in frames:
            with self.profile.timed("preprocess"):
                change, crop = self._change(frame), None
                if change is not FrameChange.STILL:
                    crop = self._tagger.preprocess(frame.image)
            yield PreparedFrame(frame, crop, time.perf_counter(), change)

    def _change(self, frame: Frame) -> FrameChange:
        if self.stills is None or frame.time_s is None:
            return FrameChange.CHANGED
        if self._tagger.vocabulary is not self._still_vocabulary:
            # results of the previous bank must not be repeated
            self._still_vocabulary = self._tagger.vocabulary
            self.stills.forget()
        return self.stills.compare(frame.source, frame.image)

    def _batches(self, ready: Iterator[PreparedFrame]) -> Iterator[list[PreparedFrame]]:
        """Group frames; those that were read before the source failed precede its error."""
        size = self._settings.batch
        while True:
            batch: list[PreparedFrame] = []
            try:
                batch.append(next(ready))
                if self.source.live and isinstance(ready, Prefetch):
                    batch.extend(ready.take_ready(size - 1))
                else:
                    batch.extend(itertools.islice(ready, size - 1))
            except StopIteration:
                return
            except InputError:
                if batch:
                    yield batch
                raise
            yield batch

    def _infer(
        self, batches: Iterator[list[PreparedFrame]]
    ) -> Iterator[tuple[list[PreparedFrame], Sequence[TagResult]]]:
        for batch in batches:
            begun = time.perf_counter()
            for item in batch:
                self.profile.add("wait", begun - item.ready_s)
            crops = [item.crop for item in batch if item.crop is not None]
            tagged: Sequence[TagResult] = ()
            if crops:
                frames = crops[0][None] if len(crops) == 1 else np.stack(crops)
                with self.profile.timed("inference"):
                    tagged = self._tagger.tag_batch(frames)
                self._tagger.remember(tagged[0])
            yield batch, tagged if self.stills is None else _repeated(self.stills, batch, tagged)

    def _moment(self, item: PreparedFrame, result: TagResult) -> Moment:
        frame = item.frame
        if frame.time_s is None or self._top_k is not None:
            return Moment(frame, result, (), tuple(tag.name for tag in result.on_tags))
        state = self._state(frame.source)
        state.last_s = frame.time_s
        if state.vocabulary is not result.vocabulary:  # the first frame of another bank
            state.vocabulary = result.vocabulary
            state.machine.retag(state.vocabulary.names, self._event_settings(state.vocabulary))
        events = state.machine.update([frame.time_s], result.scores[None])
        if self._keeps_events:
            state.events.extend(events)
        names = state.vocabulary.names
        on = tuple(names[index] for index in state.machine.on.nonzero()[0])
        return Moment(frame, result, tuple(events), on, item.change is FrameChange.STILL)

    def _state(self, source: str) -> _SourceState:
        if source not in self._states:
            vocabulary = self._tagger.vocabulary
            machine = EventMachine(vocabulary.names, self._event_settings(vocabulary))
            self._states[source] = _SourceState(machine, vocabulary)
        return self._states[source]

    def _event_settings(self, vocabulary: Vocabulary) -> EventSettings:
        return self._settings.event_settings(vocabulary.on, vocabulary.off)

    def _close_stages(self) -> None:
        for stage in self._stages:
            stage.stop()
        for stage in reversed(self._stages):
            stage.close()


def _repeated(
    stills: StillFilter, batch: list[PreparedFrame], tagged: Sequence[TagResult]
) -> list[TagResult]:
    """One result a frame; frames that were not tagged repeat the last one of their source."""
    fresh = iter(tagged)
    results = []
    for item in batch:
        if item.change is not FrameChange.STILL:
            stills.keep(item.frame.source, next(fresh), item.change)
        results.append(stills.repeat(item.frame.source))
    return results


def open_stream(
    tagger: FrameTagger,
    source: StreamInput,
    settings: StreamSettings | None,
    options: Mapping[str, Any],
) -> Stream:
    """Open a source unless it is open already, and run it through a tagger.

    Args:
        tagger: tags the frames.
        source: an open Source, or anything that `open_source` takes.
        settings: batch size, smoothing, shortest durations; None takes the defaults.
        options: fields of `StreamSettings`; and of `SourceOptions`, for a source that is not open.
    Raises:
        InputError: the source cannot be opened, or an option is unknown or wrong.
    """
    of_stream = {field.name for field in dataclasses.fields(StreamSettings)}
    of_source = {field.name for field in dataclasses.fields(SourceOptions)}
    known = sorted(of_stream | of_source)
    for name in options:
        if name not in known:
            raise InputError(f"a stream has no option {name!r}; options: {', '.join(known)}")
    chosen = {name: value for name, value in options.items() if name in of_source}
    settings = dataclasses.replace(
        settings or StreamSettings(),
        **{name: value for name, value in options.items() if name in of_stream},
    )
    if isinstance(source, Source):
        if chosen:
            raise InputError("an open source has its options already; give them to open_source")
        return Stream(tagger, source, settings)
    wanted = tagger.preprocess.source_options(SourceOptions(**chosen))
    return Stream(tagger, open_source(source, wanted), settings)

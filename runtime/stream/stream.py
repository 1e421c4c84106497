"""A source through a tagger: frames in, moments out (tags, and events when frames have times).

Reading, preprocessing and inference run in a thread each and overlap; whoever iterates the stream
does the rest (events, sinks). The order of frames is kept, and an error of the source comes out
after the frames before it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Event, EventMachine, EventSettings, Interval, timeline
from taidpt.runtime.measuring.profile import Profile
from taidpt.runtime.preprocess.preprocessor import U8Array
from taidpt.runtime.results import TagResult, Vocabulary
from taidpt.runtime.sources.open import Frame, Source, SourceOptions, open_source
from taidpt.runtime.stages import Prefetch
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.stream.still_frames import Look, StillFilter
from taidpt.runtime.top_k import refuse_top

if TYPE_CHECKING:
    from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["Stream", "StreamInput", "StreamSettings", "open_stream"]

StreamInput = str | Path | Source | npt.NDArray[Any] | Iterable[npt.NDArray[Any]]

# Frames that may wait before each stage, beside a whole batch: enough to even out a slow frame,
# few enough that a live stream stays live.
_WAITING = 2


@dataclass(frozen=True)
class StreamSettings:
    """How a stream is run.

    Attributes:
        batch: frames in one run of the graph; a live source does not wait for a whole batch.
        smoothing_s: time constant of the scores' smoothing, in seconds.
        min_on_s, min_off_s: least durations of a tag and of a gap, in seconds.
        overlap: whether the stages run in threads of their own.
        keep_events: whether the events are kept for `timeline`; None keeps those of files, and
            not those of cameras, which run for months.
        skip_still: grey levels by which a frame must differ from the last tagged one to be tagged
            itself; None tags all frames. See `taidpt.runtime.stream.still_frames`.
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
        """With the tags' thresholds, what an EventMachine takes."""
        return EventSettings(on, off, self.smoothing_s, self.min_on_s, self.min_off_s)


@dataclass(frozen=True, eq=False)
class _Ready:
    """A frame that was preprocessed, or, without a crop, one that repeats the last result."""

    frame: Frame
    crop: U8Array | None
    since: float
    look: Look


class _SourceState:
    """Smoothing and events of one source."""

    def __init__(self, machine: EventMachine, words: Vocabulary) -> None:
        self.machine = machine
        self.words = words
        self.events: list[Event] = []
        self.last_s = 0.0


class Stream(Closing):
    """A running stream: iterate it for moments, once; close it or use it in a `with`.

    Attributes:
        source: where the frames come from.
        profile: times of each stage.
        stills: counts the frames that were not tagged; None unless `skip_still` is set.
    """

    def __init__(self, tagger: Tagger, source: Source, settings: StreamSettings) -> None:
        self.source = source
        self.profile = Profile()
        still = settings.skip_still
        self.stills = None if still is None else StillFilter(still)
        self._tagger = tagger
        self._looked_for = tagger.vocabulary
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
        """Frames of a live source that were not tagged, because newer ones had come."""
        return self.source.dropped + sum(stage.dropped for stage in self._stages)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources that have given frames with times."""
        return tuple(self._states)

    @property
    def has_events(self) -> bool:
        """Whether there are events: not where the export returns each frame's best scores alone."""
        return self._top_k is None

    def last_s(self, source: str | None = None) -> float:
        """The time of the last frame of one source (None: of this stream's own)."""
        return self._state(self.source.name if source is None else source).last_s

    def machine(self, source: str | None = None) -> EventMachine:
        """Smoothing and hysteresis of one source (None: of this stream's own).

        Its state can be saved, and loaded before the first frame.

        Raises:
            InputError: the export returns each frame's best scores alone.
        """
        refuse_top(self._top_k, self._tagger.bundle.path, "an event")
        return self._state(self.source.name if source is None else source).machine

    def stop(self) -> None:
        """End after the frames that were read already; may be called from a signal handler."""
        self._stopped = True
        for stage in self._stages[:1]:
            stage.stop()

    def timeline(self, source: str | None = None) -> tuple[Interval, ...]:
        """What was on from when to when, so far, in one source (None: in this stream's own).

        Raises:
            InputError: the export returns each frame's best scores alone.
        """
        refuse_top(self._top_k, self._tagger.bundle.path, "a timeline")
        state = self._state(self.source.name if source is None else source)
        return timeline(state.events, state.last_s)

    def close(self) -> None:
        """Close the source and end the threads."""
        self._stopped = True
        if self.source.live:
            self.source.close()  # it may be waiting for a camera
        self._close_stages()
        self.source.close()

    def _tagged(self) -> Iterator[tuple[list[_Ready], Sequence[TagResult]]]:
        """Frames with their results, batch by batch."""
        size = self._settings.batch + (0 if self.source.live else _WAITING)
        frames = self._read()
        if not self.source.reads_ahead:
            frames = self._stage(frames, size, drop_oldest=self.source.live, yielding=True)
        ready = self._stage(self._prepare(frames), size, yielding=True)
        yield from self._stage(self._infer(self._batches(ready)), _WAITING)

    def _stage(
        self, items: Iterator[Any], size: int, drop_oldest: bool = False, yielding: bool = False
    ) -> Iterator[Any]:
        if not (self._settings.overlap and self.source.threaded):
            return items
        self._stages.append(Prefetch(items, size, drop_oldest, yielding=yielding))
        return self._stages[-1]

    def _read(self) -> Iterator[Frame]:
        frames = iter(self.source)
        while not self._stopped:
            begun = time.perf_counter()
            try:
                frame = next(frames)
            except StopIteration:
                return
            taken_s = time.perf_counter() - begun
            self.profile.add("decode", taken_s if frame.decode_s is None else frame.decode_s)
            yield frame

    def _prepare(self, frames: Iterator[Frame]) -> Iterator[_Ready]:
        for frame in frames:
            with self.profile.timed("preprocess"):
                look, crop = self._look(frame), None
                if look is not Look.REPEAT:
                    crop = self._tagger.preprocess(frame.image)
            yield _Ready(frame, crop, time.perf_counter(), look)

    def _look(self, frame: Frame) -> Look:
        if self.stills is None or frame.time_s is None:
            return Look.TAG
        if self._tagger.vocabulary is not self._looked_for:  # another bank: old results are void
            self._looked_for = self._tagger.vocabulary
            self.stills.forget()
        return self.stills.look(frame.source, frame.image)

    def _batches(self, ready: Iterator[_Ready]) -> Iterator[list[_Ready]]:
        """Groups of frames; those read before the source failed come out before its error."""
        size = self._settings.batch
        while True:
            batch: list[_Ready] = []
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
        self, batches: Iterator[list[_Ready]]
    ) -> Iterator[tuple[list[_Ready], Sequence[TagResult]]]:
        for batch in batches:
            begun = time.perf_counter()
            for item in batch:
                self.profile.add("wait", begun - item.since)
            crops = [item.crop for item in batch if item.crop is not None]
            tagged: Sequence[TagResult] = ()
            if crops:
                frames = crops[0][None] if len(crops) == 1 else np.stack(crops)
                with self.profile.timed("inference"):
                    tagged = self._tagger.tag_batch(frames)
            yield batch, tagged if self.stills is None else self._with_repeats(batch, tagged)

    def _with_repeats(self, batch: list[_Ready], tagged: Sequence[TagResult]) -> list[TagResult]:
        """A result for each frame; those that were not tagged repeat their source's last."""
        stills, fresh = self.stills, iter(tagged)
        assert stills is not None  # asked for only then
        results = []
        for item in batch:
            if item.look is not Look.REPEAT:
                stills.tagged(item.frame.source, next(fresh), item.look)
            results.append(stills.repeat(item.frame.source))
        return results

    def _moment(self, item: _Ready, result: TagResult) -> Moment:
        frame = item.frame
        if frame.time_s is None or self._top_k is not None:
            return Moment(frame, result, (), tuple(tag.name for tag in result.on_tags))
        state = self._state(frame.source)
        state.last_s = frame.time_s
        if state.words is not result.vocabulary:  # this frame is the first of another bank
            state.words = result.vocabulary
            state.machine.retag(state.words.names, self._event_settings(state.words))
        events = state.machine.update([frame.time_s], result.scores[None])
        if self._keeps_events:
            state.events.extend(events)
        names = state.words.names
        on = tuple(names[index] for index in state.machine.on.nonzero()[0])
        return Moment(frame, result, tuple(events), on, item.look is Look.REPEAT)

    def _state(self, source: str) -> _SourceState:
        if source not in self._states:
            words = self._tagger.vocabulary
            machine = EventMachine(words.names, self._event_settings(words))
            self._states[source] = _SourceState(machine, words)
        return self._states[source]

    def _event_settings(self, words: Vocabulary) -> EventSettings:
        return self._settings.event_settings(words.on, words.off)

    def _close_stages(self) -> None:
        for stage in self._stages:
            stage.stop()
        for stage in reversed(self._stages):
            stage.close()


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
        colours = tagger.bundle.manifest.input.source_colours
        chosen = SourceOptions(**{"colours": colours, **options})
    except TypeError as error:
        raise InputError(f"unknown option of a stream: {error}") from None
    return Stream(tagger, open_source(source, chosen), settings or StreamSettings())

"""Run a tag job: open everything, tag every source, close everything."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.measuring.power import PowerMeter
from taidpt.runtime.painting.tag_boxes import Painter
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sinks.csv_table import CsvSink
from taidpt.runtime.sinks.jsonl import EventsSink, JsonlSink
from taidpt.runtime.sinks.mqtt import open_mqtt
from taidpt.runtime.sinks.overlay import OverlaySink
from taidpt.runtime.sinks.person import PersonSink
from taidpt.runtime.sinks.report import ReportSink
from taidpt.runtime.sinks.saved_frames import SavedFramesSink
from taidpt.runtime.sinks.subtitles import SubtitleSink
from taidpt.runtime.sinks.webhook import open_webhook
from taidpt.runtime.sources.base import Source, error_to_raise
from taidpt.runtime.sources.combined import MergedSource
from taidpt.runtime.sources.open import list_sources
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.stream.stream import Stream, StreamSettings
from taidpt.runtime.tag.bank_watcher import BankWatcher
from taidpt.runtime.tag.checks import (
    check_bank_options,
    check_one_video,
    check_sources,
    check_targets,
)
from taidpt.runtime.tag.request import Outputs, TagJob
from taidpt.runtime.tag.state_file import StateFile
from taidpt.runtime.tag.terminal import FrameProgress, log_to_stderr
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["open_tagger", "run_tag"]

_LOG = logging.getLogger("taidpt.runtime")


def run_tag(job: TagJob) -> None:
    """Tag every source of a job.

    SIGTERM ends the run after the frames that are already read. Files written before an error or
    an interrupt stay valid.

    Raises:
        TaidptError: an option, a source, the bundle or an output cannot be used.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(log_to_stderr(logging.DEBUG if job.verbose else logging.INFO))
        outputs = job.outputs
        check_sources(outputs.targets, job.sources, job.bundle)
        tagger = stack.enter_context(open_tagger(job))
        options = tagger.preprocess.source_options(job.source)
        sources = _open_sources(dataclasses.replace(job, source=options), stack)
        check_bank_options(job, sources, tagger)
        if job.bank is not None:
            tagger.use_bank(job.bank)
        if job.bank is not None and job.watch_bank:
            stack.enter_context(BankWatcher(tagger, job.bank))
        live = any(source.live for source in sources)
        resume = job.state is not None and Path(job.state).exists()
        check_targets(outputs.targets, outputs.heatmap, outputs.show_off, tagger)
        _LOG.info("%s", tagger.bundle.manifest.input.describe_view())
        _LOG.info("on %s", tagger.device)
        sinks = _open_sinks(outputs, tagger, stack, resume) or [PersonSink(outputs.top, live)]
        run = stack.enter_context(_Run(sinks))
        failures: list[InputError] = []
        for source in sources:
            if run.stopped:
                break
            with contextlib.ExitStack() as turn:
                stream = turn.enter_context(Stream(tagger, source, _stream_settings(job)))
                if job.profile:
                    turn.enter_context(_profiled(stream))
                failure = _run_source(stream, sinks, run, _open_state(job, stream))
            if failure is not None:
                failures.append(failure)
                if len(sources) > 1:
                    _LOG.warning("ended: %s", failure)
        error = error_to_raise(failures, run.tagged)
        if error is not None:
            raise error


@contextlib.contextmanager
def _profiled(stream: Stream) -> Iterator[None]:
    """Print the time of each stage and the power drawn, also after an error."""
    meter = PowerMeter()
    try:
        with meter:
            yield
    finally:
        print("\n".join([*stream.profile.lines(), *meter.lines()]), file=sys.stderr)


def _open_sinks(
    outputs: Outputs, tagger: Tagger, stack: contextlib.ExitStack, resume: bool
) -> list[Sink]:
    """Open every sink and register its close; with `resume` line files are continued."""
    sinks: list[Sink] = []
    for name, target in outputs.targets.items():
        sinks.append(_open_sink(name, target, outputs, tagger, resume))
        stack.callback(sinks[-1].close)
    return sinks


def _open_sink(name: str, target: str, outputs: Outputs, tagger: Tagger, resume: bool) -> Sink:
    if name == "jsonl":
        return JsonlSink(target, outputs.top, resume)
    if name == "events":
        return EventsSink(target, resume)
    if name == "csv":
        return CsvSink(target, resume)
    if name in ("vtt", "srt"):
        return SubtitleSink(target, name)
    if name == "webhook":
        return open_webhook(target)
    if name == "mqtt":
        return open_mqtt(target)
    if name == "report":
        return ReportSink(target, f"Tags by {tagger.bundle.path.name}")
    painter = Painter(tagger.bundle.manifest.input, outputs.heatmap, outputs.show_off)
    if name == "save_frames":
        return SavedFramesSink(target, painter)
    return OverlaySink(target, painter)


def _stream_settings(job: TagJob) -> StreamSettings:
    keep = True if job.outputs.need_timeline else None
    return dataclasses.replace(job.stream, keep_events=keep)


def open_tagger(job: TagJob) -> Tagger:
    """The tagger of a job, with its threshold; `job.bank` is not loaded yet."""
    options = job.backend
    tagger = Tagger.load(
        job.bundle,
        device=options.device,
        providers=options.providers,
        threads=options.threads,
        trust_engine=options.trust_engine,
        resize=job.resize,
    )
    return tagger if job.threshold is None else tagger.with_threshold(job.threshold)


def _open_sources(job: TagJob, stack: contextlib.ExitStack) -> list[Source]:
    """All sources, none of which is open but streams and cameras, and a single file.

    Several sources are merged when one of them is live, or when the batch has room for more than
    one and no overlay is written.
    """
    sources = list_sources(job.sources, job.source)
    for source in sources:
        stack.callback(source.close)
    check_one_video(job.outputs.targets, sources)
    live = any(source.live for source in sources)
    at_once = job.stream.batch if job.outputs.overlay is None else 1
    if len(sources) > 1 and (live or at_once > 1):
        return [MergedSource(sources, None if live else at_once)]
    if len(sources) == 1:
        sources[0].open()  # a file that cannot be read fails before an output is written
    return sources


def _open_state(job: TagJob, stream: Stream) -> StateFile | None:
    if job.state is None:
        return None
    if not stream.source.live:
        raise InputError("--state is for cameras and streams; a file is tagged from its beginning")
    return StateFile(job.state, stream)


def _run_source(
    stream: Stream, sinks: Sequence[Sink], run: _Run, state: StateFile | None
) -> InputError | None:
    """Tag one source; return the error that ended it, which does not end the others."""
    run.stream = stream
    for name, events in state.unwritten.items() if state is not None else ():
        for sink in sinks:
            sink.resend(name, events)
    failures: list[InputError] = []
    try:
        stream.source.open()
    except InputError as error:
        return error
    try:
        with FrameProgress(stream.source) as progress:
            for moment in _moments(stream, failures):
                with stream.profile.timed("sinks"):
                    run.tagged = True
                    run.reopen_sinks()
                    if state is not None:
                        state.before(moment)
                    for sink in sinks:
                        sink.write(moment)
                    if state is not None:
                        state.after(moment)
                progress.step(moment)
    finally:
        # After a failure too: the frames before it have results. A broken pipe was reported by
        # the first write.
        with contextlib.suppress(BrokenPipeError):
            for name in stream.sources or (stream.source.name,):
                intervals = stream.timeline(name) if stream.has_events else ()
                for sink in sinks:
                    sink.end_source(name, intervals, stream.last_s(name))
        if state is not None:
            state.save()
        if stream.dropped:
            _LOG.warning("%s: %d frames dropped", stream.source.name, stream.dropped)
        if stream.stills is not None:
            _LOG.info("%s: %s", stream.source.name, stream.stills.counts)
    return failures[0] if failures else None


def _moments(stream: Stream, failures: list[InputError]) -> Iterator[Moment]:
    """Yield the moments of a stream; append the error that ends it. Sinks fail elsewhere."""
    try:
        yield from stream
    except InputError as error:
        failures.append(error)


class _Run:
    """A run over all sources. SIGTERM makes the stream finish the frames that it has.

    SIGHUP makes sinks continue in a new file, as a rotation of logs asks for. Where no sink can, or
    where the process had a terminal, which has gone away then, it does what SIGTERM does.

    Attributes:
        stopped: whether a signal asked to stop.
        tagged: whether any frame was tagged.
        stream: the stream of the current source.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.stopped = self.tagged = False
        self.stream: Stream | None = None
        self._sinks = sinks
        self._reopen_requested = False
        self._previous: dict[signal.Signals, Any] = {}
        self._can_reopen = any(sink.reopens for sink in sinks) and not any(map(os.isatty, range(3)))

    def __enter__(self) -> _Run:
        if threading.current_thread() is threading.main_thread():
            for number, handler in (
                (signal.SIGTERM, self._request),
                (signal.SIGHUP, self._request_reopening if self._can_reopen else self._request),
            ):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` leaves it
                    self._previous[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def reopen_sinks(self) -> None:
        """Reopen if SIGHUP has come; called between two frames, as a handler must not write."""
        if self._reopen_requested:
            self._reopen_requested = False
            for sink in self._sinks:
                sink.reopen()

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self.stream is not None:
            self.stream.stop()

    def _request_reopening(self, signum: int, frame: FrameType | None) -> None:
        self._reopen_requested = True

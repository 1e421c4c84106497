"""The work behind `taidpt tag`: open everything, run every source, close everything."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import Any

from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.errors import InputError
from taidpt.runtime.measuring.power import PowerMeter
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sinks.csv_table import CsvSink
from taidpt.runtime.sinks.jsonl import EventsSink, JsonlSink
from taidpt.runtime.sinks.mqtt import open_mqtt
from taidpt.runtime.sinks.overlay import OverlaySink
from taidpt.runtime.sinks.person import PersonSink, Progress, log_to_stderr
from taidpt.runtime.sinks.report import ReportSink
from taidpt.runtime.sinks.subtitles import SubtitleSink
from taidpt.runtime.sinks.webhook import open_webhook
from taidpt.runtime.sources.open import (
    ImageSource,
    MergedSource,
    Source,
    SourceOptions,
    open_source,
)
from taidpt.runtime.sources.picture_files import IMAGE_SUFFIXES
from taidpt.runtime.stream.stream import Stream, StreamSettings
from taidpt.runtime.tag.bank_watcher import BankWatch
from taidpt.runtime.tag.checks import check_bank_options, check_sources, check_targets
from taidpt.runtime.tag.state_file import StateFile
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["Outputs", "TagJob", "job_from_options", "parse_roi", "run_tag"]

_OUTPUTS = ("jsonl", "events", "csv", "vtt", "srt", "overlay", "report", "webhook", "mqtt")
_LOG = logging.getLogger("taidpt.runtime")


@dataclass(frozen=True)
class Outputs:
    """Where results go: files, "-" for standard output where lines are written.

    With none of them a person reads the tags on standard output.
    """

    jsonl: str | None = None
    events: str | None = None
    csv: str | None = None
    vtt: str | None = None
    srt: str | None = None
    overlay: str | None = None
    report: str | None = None
    webhook: str | None = None
    mqtt: str | None = None
    heatmap: str | None = None
    top: int | None = None

    @property
    def need_timeline(self) -> bool:
        """Whether an output is written from the whole timeline."""
        return any(name is not None for name in (self.vtt, self.srt, self.report))

    @property
    def targets(self) -> dict[str, str]:
        """By output, where it goes."""
        return {name: getattr(self, name) for name in _OUTPUTS if getattr(self, name)}

    def open(
        self, tagger: Tagger, stack: contextlib.ExitStack, live: bool, resume: bool = False
    ) -> list[Sink]:
        """Open the sinks; each is closed with the stack. With `resume` files of lines go on.

        Raises:
            InputError: a file cannot be written, or two outputs share one target.
        """
        targets = self.targets
        check_targets(targets, self.heatmap, tagger)
        sinks: list[Sink] = []
        for name, target in targets.items():
            sinks.append(self._open_one(name, target, tagger, resume))
            stack.callback(sinks[-1].close)
        return sinks or [PersonSink(self.top, live)]

    def _open_one(self, name: str, target: str, tagger: Tagger, resume: bool) -> Sink:
        if name == "jsonl":
            return JsonlSink(target, self.top, resume)
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
        return OverlaySink(target, tagger.bundle.manifest.input.crop_hw, self.heatmap)


@dataclass(frozen=True)
class TagJob:
    """Everything that one `taidpt tag` was asked to do."""

    bundle: str
    sources: tuple[str, ...]
    outputs: Outputs = field(default_factory=Outputs)
    backend: BackendOptions = field(default_factory=BackendOptions)
    source: SourceOptions = field(default_factory=SourceOptions)
    stream: StreamSettings = field(default_factory=StreamSettings)
    threshold: float | None = None
    resize: str = "exact"
    profile: bool = False
    state: str | None = None
    bank: str | None = None
    watch_bank: bool = False


def run_tag(job: TagJob) -> None:
    """Tag every source of a job.

    SIGTERM ends it after the frames that were read already. What was written before an error or
    an interrupt stays valid.

    Raises:
        TaidptError: what the parts raise.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(log_to_stderr())
        check_sources(job.outputs.targets, job.sources, job.bundle)
        tagger = stack.enter_context(_open_tagger(job))
        colours = tagger.bundle.manifest.input.source_colours
        options = dataclasses.replace(job.source, colours=colours)
        sources = _open_sources(dataclasses.replace(job, source=options), stack)
        check_bank_options(job, sources, tagger)
        if job.bank is not None:
            tagger.use_bank(job.bank)
        if job.bank is not None and job.watch_bank:
            stack.enter_context(BankWatch(tagger, job.bank))
        live = any(source.live for source in sources)
        resume = job.state is not None and Path(job.state).exists()
        sinks = job.outputs.open(tagger, stack, live, resume)
        stop = stack.enter_context(_StopOnSigterm())
        for source in sources:
            if stop.asked:
                break
            stream = stack.enter_context(Stream(tagger, source, _stream_settings(job)))
            with _profiled(stream) if job.profile else contextlib.nullcontext():
                _run_source(stream, sinks, stop, _open_state(job, stream))


@contextlib.contextmanager
def _profiled(stream: Stream) -> Iterator[None]:
    """Print each stage's times and what the device drew, also after an error."""
    meter = PowerMeter()
    try:
        with meter:
            yield
    finally:
        print("\n".join([*stream.profile.lines(), *meter.lines()]), file=sys.stderr)


def _stream_settings(job: TagJob) -> StreamSettings:
    keep = True if job.outputs.need_timeline else None
    return dataclasses.replace(job.stream, keep_events=keep)


def _open_tagger(job: TagJob) -> Tagger:
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
    """All sources, before a result is written.

    Many pictures (`*.jpg`) are one source, and so are several when one of them is live, or when
    a batch has room for several; but an overlay shows one after another.
    """
    paths = [Path(text) for text in job.sources]
    if len(paths) > 1 and all(path.suffix.lower() in IMAGE_SUFFIXES for path in paths):
        return [ImageSource(f"{len(paths)} pictures", paths, job.source)]
    sources = [stack.enter_context(open_source(text, job.source)) for text in job.sources]
    live = any(source.live for source in sources)
    at_once = job.stream.batch if job.outputs.overlay is None else 1
    if len(sources) > 1 and (live or at_once > 1):
        return [MergedSource(sources, None if live else at_once)]
    return sources


def _open_state(job: TagJob, stream: Stream) -> StateFile | None:
    if job.state is None:
        return None
    if not stream.source.live:
        raise InputError("--state is for cameras and streams; a file is tagged from its beginning")
    return StateFile(job.state, stream)


def _run_source(
    stream: Stream, sinks: Sequence[Sink], stop: _StopOnSigterm, state: StateFile | None
) -> None:
    stop.stream = stream
    try:
        with Progress(stream.source) as progress:
            for moment in stream:
                with stream.profile.timed("sinks"):
                    for sink in sinks:
                        sink.write(moment)
                if state is not None:
                    state.step()
                progress.step(moment)
    finally:
        # a source that fails in the middle has given something too
        with _quiet_after_error():
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


@contextlib.contextmanager
def _quiet_after_error() -> Iterator[None]:
    """A reader of standard output that has gone is told by the first error only."""
    with contextlib.suppress(BrokenPipeError):
        yield


class _StopOnSigterm:
    """While inside the `with`, SIGTERM asks the running stream to drain."""

    def __init__(self) -> None:
        self.asked = False
        self.stream: Stream | None = None
        self._before: Any = None

    def __enter__(self) -> _StopOnSigterm:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self.asked = True
        if self.stream is not None:
            self.stream.stop()


def parse_roi(text: str | None) -> tuple[int, int, int, int] | None:
    """`x,y,width,height` as numbers.

    Raises:
        InputError: it is not four whole numbers.
    """
    if text is None:
        return None
    parts = text.split(",")
    try:
        x, y, width, height = (int(part) for part in parts)
    except ValueError:
        raise InputError(f"--roi should be x,y,width,height in pixels, got {text!r}") from None
    return x, y, width, height


def job_from_options(bundle: str, sources: tuple[str, ...], options: Mapping[str, Any]) -> TagJob:
    """A job from the command line's options."""
    return TagJob(
        bundle=bundle,
        sources=sources,
        outputs=Outputs(**{item.name: options[item.name] for item in fields(Outputs)}),
        backend=BackendOptions(
            device=options["device"],
            threads=options["threads"],
            trust_engine=options["trust_engine"],
        ),
        source=SourceOptions(
            recursive=options["recursive"],
            every=options["every"],
            max_fps=options["max_fps"],
            roi=parse_roi(options["roi"]),
            decoder=options["decoder"],
        ),
        stream=StreamSettings(
            batch=options["batch"],
            smoothing_s=options["smoothing"],
            min_on_s=options["min_on"],
            min_off_s=options["min_off"],
            skip_still=options["skip_still"],
        ),
        threshold=options["threshold"],
        resize=options["resize"],
        profile=options["profile"],
        state=options["state"],
        bank=options["bank"],
        watch_bank=options["watch_bank"],
    )

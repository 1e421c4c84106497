"""What `taidpt tag` shows a person: a timeline, a line a picture, and progress on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from taidpt.runtime.events.machine import Interval
from taidpt.runtime.redact import redact
from taidpt.runtime.storage.stdout import write_stdout
from taidpt.runtime.stream.moment import Moment

if TYPE_CHECKING:
    from taidpt.runtime.sources.open import Source

__all__ = ["PersonSink", "Progress", "clock_text", "log_to_stderr", "timeline_lines"]

_BAR_CELLS = 40
_SPANS_SHOWN = 6


def clock_text(seconds: float) -> str:
    """Seconds as `0:03.2` or `1:02:03.4`."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def timeline_lines(intervals: Sequence[Interval], end_s: float) -> list[str]:
    """A line a tag: its name, a bar of the whole time, and its spans; in order of first sight."""
    if not intervals:
        return []
    spans: dict[str, list[Interval]] = {}
    for interval in intervals:
        spans.setdefault(interval.tag, []).append(interval)
    width = max(map(len, spans))
    return [
        f"{tag:<{width}}  {_bar(stretches, end_s)}  {_span_text(stretches)}"
        for tag, stretches in spans.items()
    ]


def _bar(stretches: Sequence[Interval], end_s: float) -> str:
    cells = ["·"] * _BAR_CELLS
    scale = _BAR_CELLS / end_s if end_s > 0 else 0.0
    for stretch in stretches:
        first = min(int(stretch.start_s * scale), _BAR_CELLS - 1)
        last = min(int(stretch.end_s * scale), _BAR_CELLS - 1)
        cells[first : last + 1] = "█" * (last + 1 - first)
    return "".join(cells)


def _span_text(stretches: Sequence[Interval]) -> str:
    shown = [f"{clock_text(s.start_s)}–{clock_text(s.end_s)}" for s in stretches[:_SPANS_SHOWN]]
    more = len(stretches) - _SPANS_SHOWN
    return ", ".join(shown) + (f", and {more} more" if more > 0 else "")


class PersonSink:
    """Prints to standard output: pictures line by line, videos as a timeline at their end.

    Of live sources each event is printed when it is decided.
    """

    def __init__(self, top: int | None = None, live: bool = False) -> None:
        self._top = top or 3
        self._live = live
        self._best: dict[str, dict[str, float]] = {}

    def write(self, moment: Moment) -> None:
        """Print a picture's tags; remember a video's best scores."""
        if moment.time is None:
            write_stdout(f"{moment.frame.source}: {_picture_text(moment, self._top)}\n")
            return
        if self._live:
            _print_events(moment)
            return
        best = self._best.setdefault(moment.frame.source, {})
        for tag in moment.result.top(self._top):
            best[tag.name] = max(tag.score, best.get(tag.name, tag.score))

    def end_source(self, source: str, intervals: Sequence[Interval], end_s: float) -> None:
        """Print the timeline of a video."""
        seen = self._best.pop(source, None)
        if seen is None:
            return
        lines = timeline_lines(intervals, end_s)
        if not lines:
            ranked = sorted(seen.items(), key=lambda item: -item[1])[: self._top]
            best = ", ".join(f"{name} {score:.2f}" for name, score in ranked)
            lines = [f"no tag reached its threshold; the best scores were {best}"]
        write_stdout("\n  ".join([f"{source}, {clock_text(end_s)}", *lines]) + "\n")

    def close(self) -> None:
        """Nothing to close."""


def _print_events(moment: Moment) -> None:
    for event in moment.events:
        when = clock_text(event.time_s)
        write_stdout(f"{moment.frame.source} {when} {event.tag} {event.kind}\n")


def _picture_text(moment: Moment, top: int) -> str:
    on = moment.result.on_tags
    if on:
        return ", ".join(f"{tag.name} {tag.score:.2f}" for tag in on)
    best = ", ".join(f"{tag.name} {tag.score:.2f}" for tag in moment.result.top(top))
    return f"no tag reached its threshold (best: {best})"


class Progress:
    """Progress on standard error: a bar where that is a terminal, else one line at the end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._count = 0
        self._begun = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and not self._source.live:
            from tqdm import tqdm

            name, total = self._source.name, self._source.total
            self._bar = tqdm(desc=name, total=total, unit="frame", leave=False, dynamic_ncols=True)
        return self

    def step(self, moment: Moment) -> None:
        """Count one frame."""
        self._count += 1
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(moment.on[:4]), refresh=False)
            self._bar.update()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is not None and issubclass(kind, BrokenPipeError):
            return  # whoever read the output has gone: end in silence
        seconds = max(time.monotonic() - self._begun, 1e-9)
        with contextlib.suppress(OSError):
            print(
                f"{self._source.name}: frames: {self._count}, seconds: {seconds:.1f}, "
                f"frames a second: {self._count / seconds:.1f}",
                file=sys.stderr,
            )


class _Redacting(logging.Formatter):
    """Other libraries' reasons may repeat a whole URL."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show the runtime's log lines, from INFO on, while a command runs."""
    logger = logging.getLogger("taidpt")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Redacting("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

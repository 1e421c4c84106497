"""Results for a person at the terminal: a line per picture, a timeline per video."""

from __future__ import annotations

from collections.abc import Sequence

from taidpt.runtime.events.machine import Interval
from taidpt.runtime.printable import clock_text, printable
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.storage.stdout import write_stdout
from taidpt.runtime.stream.moment import Moment

__all__ = ["PersonSink", "timeline_lines"]

# A bar, a tag's name and a few spans fit into a terminal 120 columns wide.
_BAR_CELLS = 40
_SPANS_SHOWN = 6


def timeline_lines(intervals: Sequence[Interval], end_s: float) -> list[str]:
    """One line per tag: name, bar of the whole time, spans; in order of appearance."""
    if not intervals:
        return []
    by_tag: dict[str, list[Interval]] = {}
    for interval in intervals:
        by_tag.setdefault(printable(interval.tag), []).append(interval)
    width = max(map(len, by_tag))
    return [
        f"{tag:<{width}}  {_bar(spans, end_s)}  {_span_text(spans)}"
        for tag, spans in by_tag.items()
    ]


def _bar(spans: Sequence[Interval], end_s: float) -> str:
    cells = ["·"] * _BAR_CELLS
    scale = _BAR_CELLS / end_s if end_s > 0 else 0.0
    for span in spans:
        first = min(int(span.start_s * scale), _BAR_CELLS - 1)
        last = min(int(span.end_s * scale), _BAR_CELLS - 1)
        cells[first : last + 1] = "█" * (last + 1 - first)
    return "".join(cells)


def _span_text(spans: Sequence[Interval]) -> str:
    shown = [f"{clock_text(s.start_s)}–{clock_text(s.end_s)}" for s in spans[:_SPANS_SHOWN]]
    more = len(spans) - _SPANS_SHOWN
    return ", ".join(shown) + (f", and {more} more" if more > 0 else "")


class PersonSink(Sink):
    """Prints to standard output: a line per picture, a timeline at the end of each video.

    For a live source, every event is printed when it is decided.
    """

    def __init__(self, top: int | None = None, live: bool = False) -> None:
        self._top = top or 3
        self._live = live
        self._best: dict[str, dict[str, float]] = {}
        self._note = ""

    def write(self, moment: Moment) -> None:
        """Print a picture's tags; remember a video's best scores."""
        self._print_note(moment.result.vocabulary.text_note)
        if moment.time is None:
            _print(f"{moment.frame.source}: {_picture_text(moment, self._top)}")
            return
        if self._live:
            _print_events(moment)
            return
        best = self._best.setdefault(moment.frame.source, {})
        for tag in moment.result.top(self._top):
            best[tag.name] = max(tag.score, best.get(tag.name, tag.score))

    def _print_note(self, note: str) -> None:
        """Print where thresholds come from texts, once and again when the bank changes."""
        if note and note != self._note:
            write_stdout(f"{note}; set them with taidpt calibrate\n")
        self._note = note

    def end_source(self, source: str, intervals: Sequence[Interval], end_s: float) -> None:
        """Print the timeline of a video."""
        best_scores = self._best.pop(source, None)
        if best_scores is None:
            return
        lines = timeline_lines(intervals, end_s)
        if not lines:
            ranked = sorted(best_scores.items(), key=lambda item: -item[1])[: self._top]
            best = ", ".join(f"{name} {score:.2f}" for name, score in ranked)
            lines = [f"no tag reached its threshold; the best scores were {best}"]
        _print(f"{source}, {clock_text(end_s)}", *lines)


def _print(*lines: str) -> None:
    write_stdout("\n  ".join(map(printable, lines)) + "\n")


def _print_events(moment: Moment) -> None:
    for event in moment.events:
        when = clock_text(event.time_s)
        _print(f"{moment.frame.source} {when} {event.tag} {event.kind}")


def _picture_text(moment: Moment, top: int) -> str:
    on = moment.result.on_tags
    if on:
        return ", ".join(f"{tag.name} {tag.score:.2f}" for tag in on)
    best = ", ".join(f"{tag.name} {tag.score:.2f}" for tag in moment.result.top(top))
    return f"no tag reached its threshold (best: {best})"

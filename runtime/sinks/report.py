"""One HTML page: the timeline of every source, and each tag's picture at its best score."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taidpt.runtime.events.machine import Interval
from taidpt.runtime.painting.drawing import jpeg, rgb_image
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.sinks.person import clock_text
from taidpt.runtime.storage.outputs import write_output
from taidpt.runtime.stream.moment import Moment

__all__ = ["ReportSink"]

# The page holds its pictures: 200 JPEGs 240 pixels wide are about 2 MB, which a browser opens at
# once and a mail can carry.
_MOST_PICTURES = 200
_PICTURE_WIDTH = 240
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #1b2430; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem; overflow-wrap: anywhere }
svg { width: 100%; height: auto } .quiet { color: #667 }
.cards { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 15rem }
figure img { width: 100%; border-radius: 6px; display: block } figcaption { font-size: .85rem }
@media (prefers-color-scheme: dark) { body { background: #14181d; color: #dde3ea }
  svg text { fill: #dde3ea } .quiet { color: #93a } }
"""


@dataclass
class _Best:
    """The moment with a tag's highest score so far."""

    score: float
    time_s: float | None
    picture: bytes


@dataclass
class _Source:
    frames: int = 0
    best: dict[str, _Best] = field(default_factory=dict)
    intervals: tuple[Interval, ...] = ()
    end_s: float = 0.0


class ReportSink(Sink):
    """Collects while tagging and writes the page when closed; the page needs no network."""

    def __init__(self, path: str | Path, title: str = "Tags") -> None:
        """Write an empty page at once, so that a path that cannot be written fails early.

        Raises:
            InputError: the file cannot be written.
        """
        self._path, self._title = Path(path), title
        self._sources: dict[str, _Source] = {}
        self._notes: dict[str, None] = {}
        self._save()

    def write(self, moment: Moment) -> None:
        """Keep a small picture where a tag that is on has its highest score so far."""
        timed = moment.time is not None
        source = self._sources.setdefault(moment.frame.source if timed else "Pictures", _Source())
        source.frames += 1
        self._notes.setdefault(moment.result.vocabulary.text_note)
        better = [name for name in moment.on if self._is_better(source, moment, name)]
        if not better:
            return
        picture = jpeg(rgb_image(moment.frame.picture), _PICTURE_WIDTH)
        for name in better:
            score = moment.result[name].score
            source.best[name] = _Best(score, moment.time, picture)

    def end_source(self, source: str, intervals: Sequence[Interval], end_s: float) -> None:
        """Keep the timeline."""
        if source in self._sources:
            self._sources[source].intervals = tuple(intervals)
            self._sources[source].end_s = end_s

    def close(self) -> None:
        """Write the page."""
        self._save()

    def _is_better(self, source: _Source, moment: Moment, name: str) -> bool:
        best = source.best.get(name)
        if best is None:
            return sum(len(each.best) for each in self._sources.values()) < _MOST_PICTURES
        return moment.result[name].score > best.score

    def _save(self) -> None:
        body = "".join(_section(name, source) for name, source in self._sources.items())
        notes = "".join(f"<p class=quiet>{html.escape(note)}</p>" for note in self._notes if note)
        page = (
            '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self._title)}</title><style>{_STYLE}</style>"
            f"<h1>{html.escape(self._title)}</h1>{notes}{body or '<p>No frames.</p>'}</html>\n"
        )
        write_output(self._path, page.encode("utf-8", "backslashreplace"))


def _section(name: str, source: _Source) -> str:
    length = f", {clock_text(source.end_s)}" if source.end_s else ""
    head = f"<h2>{html.escape(name)}</h2><p class=quiet>{source.frames} frames{length}</p>"
    ranked = sorted(source.best.items(), key=lambda item: item[1].time_s or 0.0)
    cards = "".join(_card(tag, best) for tag, best in ranked)
    empty = "<p>No tag reached its threshold.</p>"
    return f"{head}{_drawing(source)}<div class=cards>{cards or empty}</div>"


def _card(tag: str, best: _Best) -> str:
    data = base64.b64encode(best.picture).decode()
    when = "" if best.time_s is None else f" at {clock_text(best.time_s)}"
    name = html.escape(tag)
    return (
        f'<figure><img alt="{name}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption><b>{name}</b> {best.score:.2f}{when}</figcaption></figure>"
    )


def _drawing(source: _Source) -> str:
    """The timeline as SVG, one row per tag."""
    if not source.intervals or source.end_s <= 0:
        return ""
    tags = list(dict.fromkeys(interval.tag for interval in source.intervals))
    left, width, row = 170, 1000, 22
    scale = (width - left) / source.end_s
    bars = [_bar(item, left, tags.index(item.tag) * row, scale) for item in source.intervals]
    labels = [
        f'<text x="{left - 8}" y="{index * row + 16}" text-anchor="end">{html.escape(tag)}</text>'
        for index, tag in enumerate(tags)
    ]
    height = row * len(tags) + 24
    ends = (
        f'<text x="{left}" y="{height - 4}">0:00</text><text x="{width}" y="{height - 4}" '
        f'text-anchor="end">{clock_text(source.end_s)}</text>'
    )
    head = f'<svg viewBox="0 0 {width} {height}" font-size="13" role="img" aria-label="timeline">'
    return head + "".join(labels + bars) + ends + "</svg>"


def _bar(item: Interval, left: int, top: int, scale: float) -> str:
    x, width = left + item.start_s * scale, max((item.end_s - item.start_s) * scale, 2)
    times = f"{item.tag}: {clock_text(item.start_s)}–{clock_text(item.end_s)}"
    return (
        f'<rect x="{x:.1f}" y="{top + 4}" width="{width:.1f}" height="14" rx="3" fill="#2f9e68">'
        f"<title>{html.escape(times)}</title></rect>"
    )

"""One HTML page: the timeline of every source, and a picture of each event."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from taidpt.runtime.events.machine import Interval
from taidpt.runtime.pages.page import page
from taidpt.runtime.pages.timeline import Bar, Row, Thumbnail, image_source, timeline
from taidpt.runtime.painting.drawing import jpeg, rgb_image
from taidpt.runtime.printable import clock_text
from taidpt.runtime.results import Tag
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.storage.outputs import write_output
from taidpt.runtime.stream.moment import Moment

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ReportSink"]

# The page holds its pictures: 200 JPEGs 320 pixels wide, and a small one of each, are about 3 MB,
# which a browser opens at once and a mail can carry. A picture in memory is replaced by a clearer
# one while its tag is on, and encoded at the end.
_MOST_PICTURES = 200
_PICTURE_WIDTH = 320
_SMALL_WIDTH = 96
_PICTURES = "Pictures"


@dataclass
class _Best:
    """The frame with the highest score of a tag while it is on."""

    tag: Tag
    time_s: float | None
    picture: Image | bytes

    def encode(self) -> bytes:
        """The picture as JPEG, which takes a tenth of the memory."""
        if not isinstance(self.picture, bytes):
            self.picture = jpeg(self.picture, _PICTURE_WIDTH)
        return self.picture


@dataclass
class _Source:
    """What is known of a source.

    Attributes:
        current: of each tag that is on, its best frame so far.
        past: the best frames of tags that have gone off, in that order.
        counts: of pictures, how many each tag is on in.
    """

    frames: int = 0
    current: dict[str, _Best] = field(default_factory=dict)
    past: list[_Best] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    intervals: tuple[Interval, ...] = ()
    end_s: float = 0.0

    @property
    def bests(self) -> Iterable[_Best]:
        return (*self.past, *self.current.values())


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
        self._pictures = 0
        self._save()

    def write(self, moment: Moment) -> None:
        """Keep a small picture where a tag that is on has its highest score so far."""
        timed = moment.time is not None
        source = self._sources.setdefault(moment.frame.source if timed else _PICTURES, _Source())
        source.frames += 1
        self._notes.setdefault(moment.result.vocabulary.text_note)
        if timed:
            for name in [name for name in source.current if name not in moment.on]:
                source.past.append(source.current.pop(name))
                source.past[-1].encode()
        else:
            for name in moment.on:
                source.counts[name] = source.counts.get(name, 0) + 1
        tags = [moment.result[name] for name in moment.on]
        better = [tag for tag in tags if self._is_better(source, tag)]
        if not better:
            return
        small = rgb_image(moment.frame.picture)
        small.thumbnail((_PICTURE_WIDTH, _PICTURE_WIDTH))
        for tag in better:
            self._pictures += tag.name not in source.current
            source.current[tag.name] = _Best(tag, moment.time, small)

    def end_source(self, source: str, intervals: Sequence[Interval], end_s: float) -> None:
        """Keep the timeline."""
        if source in self._sources:
            self._sources[source].intervals = tuple(intervals)
            self._sources[source].end_s = end_s

    def close(self) -> None:
        """Write the page."""
        self._save()

    def _is_better(self, source: _Source, tag: Tag) -> bool:
        best = source.current.get(tag.name)
        return self._pictures < _MOST_PICTURES if best is None else tag.score > best.tag.score

    def _save(self) -> None:
        sections = [
            _section(f"s{index}", name, source)
            for index, (name, source) in enumerate(self._sources.items())
        ]
        notes = "".join(
            f'<p class="warn">{html.escape(note)}</p>\n' for note in self._notes if note
        )
        if self._pictures >= _MOST_PICTURES:
            notes += f'<p class="soft">pictures of the first {_MOST_PICTURES} events</p>\n'
        body = notes + ("".join(sections) or "<p>No frames.</p>")
        write_output(self._path, page(self._title, body))


def _section(identifier: str, name: str, source: _Source) -> str:
    length = f", {clock_text(source.end_s)}" if source.end_s else ""
    count = "frame" if source.frames == 1 else "frames"
    head = f'<h2>{html.escape(name)}</h2>\n<p class="soft">{source.frames} {count}{length}</p>\n'
    bests = sorted(source.bests, key=lambda best: (best.time_s or 0.0, best.tag.name))
    spans = [_span_of(best, source.intervals) for best in bests]
    ids = [f"{identifier}e{number}" for number in range(len(bests))]
    cards = "".join(
        _card(identity, best, span, source)
        for identity, best, span in zip(ids, bests, spans, strict=True)
    )
    chart = _timeline(identifier, bests, spans, ids, source)
    none = "" if source.intervals else "<p>No tag reached its threshold.</p>\n"
    return f'{head}{chart}<div class="cards">{cards}</div>\n' if cards else head + (chart or none)


def _span_of(best: _Best, intervals: Sequence[Interval]) -> Interval | None:
    """The interval in which a picture was taken, which may begin a little after its decision."""
    time_s = best.time_s
    if time_s is None:
        return None
    own = [item for item in intervals if item.tag == best.tag.name]
    return min(
        own,
        key=lambda item: max(item.start_s - time_s, time_s - item.end_s, 0.0),
        default=None,
    )


def _timeline(
    identifier: str,
    bests: Sequence[_Best],
    spans: Sequence[Interval | None],
    ids: Sequence[str],
    source: _Source,
) -> str:
    """Rows in order of first appearance; a bar and its small picture lead to the card."""
    targets = {id(span): identity for span, identity in zip(spans, ids, strict=True)}
    rows: dict[str, list[Bar]] = {}
    for item in source.intervals:
        text = f"{item.tag}: {_times(item)}"
        bar = Bar(item.start_s, item.end_s, text, target=targets.get(id(item), ""))
        rows.setdefault(item.tag, []).append(bar)
    small = [
        Thumbnail(span.start_s, _shrunk(best), f"{best.tag.name}: {_times(span)}", identity)
        for best, span, identity in zip(bests, spans, ids, strict=True)
        if span is not None
    ]
    return timeline(identifier, [Row(*row) for row in rows.items()], source.end_s, small)


def _shrunk(best: _Best) -> bytes:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(best.encode())) as opened:
        return jpeg(opened, _SMALL_WIDTH, quality=70)


def _times(item: Interval) -> str:
    return f"{clock_text(item.start_s)}–{'end' if item.open else clock_text(item.end_s)}"


def _card(identity: str, best: _Best, span: Interval | None, source: _Source) -> str:
    tag = best.tag
    name = html.escape(tag.name)
    if span is not None:
        when = _times(span)
    elif tag.name in source.counts:
        when = f"in {source.counts[tag.name]} of {source.frames}"
    else:
        when = "" if best.time_s is None else f"at {clock_text(best.time_s)}"
    sure = f"score {tag.score:.2f}" if tag.probability is None else f"{tag.probability:.0%}"
    return (
        f'<figure id="{identity}"><img alt="{name}" src="{image_source(best.encode())}">'
        f'<figcaption><b>{name}</b> {when}<br><span class="soft">{sure}</span>'
        "</figcaption></figure>\n"
    )

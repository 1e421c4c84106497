"""A timeline as HTML: rows of bars over time, ticks, three widths, and small pictures above."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from taidpt.runtime.printable import clock_text

__all__ = ["Bar", "Row", "Thumbnail", "image_source", "timeline"]

# The widths, as multiples of the page's. The widest shows an hour at a second a pixel.
_ZOOMS = (1, 4, 16)
# Distances between ticks, in seconds: those that a clock face has. At a page's width six labels
# fit, on a phone too.
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
_LABELS = 6
# A row is 28 pixels high, as in page.css, and its bars are 10 or, behind them, 20.
_ROW, _THIN, _THICK = 28, 10, 20
# The narrowest bar, in percent of the timeline: two pixels of a wide page.
_NARROWEST = 0.25
# How many pictures have room side by side, by the class that shows them: on a phone (p) and on a
# wide page (d), at each zoom. A picture is about 90 pixels wide.
_ROOM = {"p1": 3, "d1": 8, "p4": 12, "d4": 32, "p16": 48, "d16": 128}


@dataclass(frozen=True)
class Bar:
    """A span of time, in seconds.

    Attributes:
        text: shown while the pointer is over it.
        kind: "found", or "truth" for a wide bar behind the others.
        target: the id of an element that it leads to; empty for none.
    """

    start_s: float
    end_s: float
    text: str
    kind: str = "found"
    target: str = ""


@dataclass(frozen=True)
class Row:
    """A name and its bars."""

    name: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Thumbnail:
    """A small picture at a time.

    Attributes:
        jpeg: the file's bytes.
        target: the id of the element that it leads to; empty for none.
    """

    time_s: float
    jpeg: bytes
    text: str
    target: str = ""


def image_source(jpeg: bytes) -> str:
    """A JPEG as the value of `src`."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def timeline(
    name: str, rows: Sequence[Row], end_s: float, thumbnails: Sequence[Thumbnail] = ()
) -> str:
    """The HTML of a timeline; empty without rows.

    Args:
        name: a prefix for ids, unique on the page: letters and digits.
        rows: from top to bottom.
        end_s: the end of the time axis, in seconds, from 0.
        thumbnails: shown above the rows, as many as have room side by side.
    """
    if not rows or end_s <= 0:
        return ""
    film = "".join(_film(thumbnails, end_s))
    names = '<div class="film"></div>' if film else ""
    names += "".join(f"<div>{html.escape(row.name)}</div>" for row in rows)
    strip = f'<div class="film">{film}</div>' if film else ""
    height = _ROW * len(rows) + 24
    ticks = "".join(_ticks(zoom, end_s, height) for zoom in _ZOOMS)
    rules = "".join(
        f'<line x1="0" x2="100%" y1="{_ROW * index}" y2="{_ROW * index}"/>'
        for index in range(len(rows) + 1)
    )
    bars = "".join(
        _bar(bar, index, end_s)
        for index, row in enumerate(rows)
        for bar in sorted(row.bars, key=lambda bar: bar.kind != "truth")
    )
    return (
        f'<div class="timeline">{_choices(name)}<div class="lanes">'
        f'<div class="names">{names}</div><div class="pane" tabindex="0"><div class="wide">{strip}'
        f'<svg height="{height}" role="img" aria-label="timeline">{rules}{ticks}{bars}</svg>'
        "</div></div></div></div>\n"
    )


def _choices(name: str) -> str:
    """Radio buttons that set the width, so that a page needs no script."""
    return "".join(
        f'<input type="radio" name="{name}-zoom" id="{name}-x{zoom}" class="zoom{zoom}"'
        f'{" checked" if zoom == 1 else ""}><label for="{name}-x{zoom}">{zoom}×</label>'
        for zoom in _ZOOMS
    )


def _ticks(zoom: int, end_s: float, height: int) -> str:
    least = end_s / (_LABELS * zoom)
    step = next((step for step in _STEPS_S if step >= least), None)
    if step is None:  # whole days
        step = 86400 * max(round(least / 86400), 1)
    lines, index = [], 0
    while index * step <= end_s:
        place = 100 * index * step / end_s
        anchor = "start" if index == 0 else "end" if place > 96 else "middle"
        lines.append(
            f'<line x1="{place:.3f}%" x2="{place:.3f}%" y1="0" y2="{height - 18}"/>'
            f'<text x="{place:.3f}%" y="{height - 5}" text-anchor="{anchor}">'
            f"{_tick_text(index * step, step)}</text>"
        )
        index += 1
    return f'<g class="x{zoom}">{"".join(lines)}</g>'


def _tick_text(time_s: float, step: float) -> str:
    text = clock_text(time_s)
    return text if step < 1 else text.rpartition(".")[0]


def _bar(bar: Bar, row: int, end_s: float) -> str:
    thick = _THICK if bar.kind == "truth" else _THIN
    width = max(100 * (bar.end_s - bar.start_s) / end_s, _NARROWEST)
    drawn = (
        f'<rect class="{bar.kind}" x="{100 * bar.start_s / end_s:.3f}%" width="{width:.3f}%" '
        f'y="{row * _ROW + (_ROW - thick) / 2:g}" height="{thick}" rx="3">'
        f"<title>{html.escape(bar.text)}</title></rect>"
    )
    return f'<a href="#{bar.target}">{drawn}</a>' if bar.target else drawn


def _film(thumbnails: Sequence[Thumbnail], end_s: float) -> Iterator[str]:
    """The pictures that have room at some width; their classes say at which."""
    ranked = sorted(thumbnails, key=lambda item: item.time_s)
    classes: list[list[str]] = [[] for _ in ranked]
    for name, count in _ROOM.items():
        free_s = 0.0
        for item, names in zip(ranked, classes, strict=True):
            if item.time_s >= free_s:
                names.append(name)
                free_s = item.time_s + end_s / count
    for item, names in zip(ranked, classes, strict=True):
        if names:
            text = html.escape(item.text)
            link = f' href="#{item.target}"' if item.target else ""
            yield (
                f'<a class="{" ".join(names)}"{link} title="{text}" '
                f'style="left:clamp(2rem,{100 * item.time_s / end_s:.3f}%,100% - 2rem)">'
                f'<img alt="{text}" src="{image_source(item.jpeg)}"></a>'
            )

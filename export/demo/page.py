"""The demo's pictures and its HTML page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from taidpt.runtime.events.machine import Interval
from taidpt.runtime.stream.moment import Moment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DemoReport", "MethodScore", "write_page"]

TRUTH_COLOUR = "#c9c4b8"
FOUND_COLOUR = "#1f7a6d"
INK = "#22302d"
_SHOWN_TAGS = 4  # names that fit above a frame


@dataclass(frozen=True)
class MethodScore:
    """One line of the table: a method and its mAP in percent."""

    name: str
    explanation: str
    mean_average_precision: float


@dataclass(frozen=True)
class DemoReport:
    """All contents of the page.

    Attributes:
        scores: the table.
        found, truth: when tags are on in the video.
        frames: moments to show with their tags.
        heatmaps: moments to show with the heatmap of their best tag.
        facts: a name and a value each.
    """

    scores: tuple[MethodScore, ...]
    found: tuple[Interval, ...]
    truth: tuple[Interval, ...]
    frames: tuple[Moment, ...]
    heatmaps: tuple[Moment, ...]
    facts: tuple[tuple[str, str], ...]


def write_page(report: DemoReport, folder: Path) -> Path:
    """Write PNG files, and `index.html` with the same pictures embedded.

    Args:
        report: the demo's results.
        folder: created if missing; files of the same names are replaced.
    Returns:
        The page's path.
    """
    import jinja2

    folder.mkdir(parents=True, exist_ok=True)
    drawings = {
        "frames": _draw_frames(report.frames),
        "timeline": _draw_timeline(report.found, report.truth),
        "heatmap": _draw_heatmaps(report.heatmaps),
    }
    pictures = {name: _save(figure, folder / f"{name}.png") for name, figure in drawings.items()}
    source = (resources.files("taidpt.export") / "files" / "demo.html.j2").read_text("utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        source
    )
    page = folder / "index.html"
    page.write_text(template.render(report=report, pictures=pictures), "utf-8")
    return page


def _save(figure: Figure, path: Path) -> str:
    figure.savefig(path, dpi=130, facecolor="white")
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _new_figure(width: float, height: float) -> Figure:
    # the object interface needs no window system and has no global state
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_frames(moments: Sequence[Moment]) -> Figure:
    columns = min(3, max(1, len(moments)))
    rows = -(-len(moments) // columns) or 1
    figure = _new_figure(3.3 * _aspect(moments) * columns, 3.6 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, moment in zip(axes, moments, strict=False):
        axis.imshow(moment.frame.image)
        tags = moment.result.on_tags[:_SHOWN_TAGS]
        names = ", ".join(f"{tag.name} {tag.score:.2f}" for tag in tags) or "nothing"
        axis.set_title(f"{moment.time or 0.0:.1f} s  {names}", fontsize=8, color=INK, wrap=True)
    return figure


def _aspect(moments: Sequence[Moment]) -> float:
    """Width of the frames divided by their height."""
    height, width = moments[0].frame.image.shape[:2] if moments else (1, 1)
    return float(width / height)


def _draw_timeline(found: Sequence[Interval], truth: Sequence[Interval]) -> Figure:
    tags = sorted({span.tag for span in truth}, key=lambda tag: _first_start(truth, tag))
    tags += sorted({span.tag for span in found} - set(tags))
    figure = _new_figure(10.0, 1.2 + 0.32 * len(tags))
    axis = figure.subplots()
    for row, tag in enumerate(tags):
        _draw_bars(axis, truth, tag, row - 0.38, 0.76, TRUTH_COLOUR)
        _draw_bars(axis, found, tag, row - 0.18, 0.36, FOUND_COLOUR)
    axis.set_yticks(range(len(tags)), tags, fontsize=9, color=INK)
    axis.set_ylim(len(tags) - 0.4, -0.6)
    axis.set_xlabel("seconds", color=INK)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.bar([0], [0], color=TRUTH_COLOUR, label="truth")
    axis.bar([0], [0], color=FOUND_COLOUR, label="found")
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)
    return figure


def _first_start(spans: Sequence[Interval], tag: str) -> tuple[float, str]:
    return min(span.start_s for span in spans if span.tag == tag), tag


def _draw_bars(
    axis: Axes, spans: Sequence[Interval], tag: str, bottom: float, height: float, colour: str
) -> None:
    bars = [(span.start_s, span.end_s - span.start_s) for span in spans if span.tag == tag]
    axis.broken_barh(bars, (bottom, height), facecolors=colour)


def _draw_heatmaps(moments: Sequence[Moment]) -> Figure:
    count = max(1, len(moments))
    figure = _new_figure(3.3 * _aspect(moments) * count, 3.6)
    axes = figure.subplots(1, count, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, moment in zip(axes, moments, strict=False):
        best, image = moment.result.top(1)[0].name, moment.frame.image
        height, width = image.shape[:2]
        edges = (*_crop_columns(width, height), height, 0)
        heat = moment.result.heatmap(best)
        axis.imshow(image)
        axis.imshow(heat, extent=edges, interpolation="bicubic", cmap="magma", alpha=0.55)
        axis.set_xlim(0, width)
        axis.set_ylim(height, 0)
        axis.set_title(f"where is the {best}?", fontsize=9, color=INK)
    return figure


def _crop_columns(width: int, height: int) -> tuple[float, float]:
    """Left and right edge of the square centre crop that the tagger sees of a wide frame."""
    side = min(width, height)
    return (width - side) / 2, (width + side) / 2

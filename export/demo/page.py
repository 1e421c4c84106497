"""The demo's pictures and its HTML page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DemoReport", "Heatmap", "MethodScore", "Span", "TaggedFrame", "write_page"]

TRUTH_COLOUR = "#c9c4b8"
FOUND_COLOUR = "#1f7a6d"
INK = "#22302d"

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class MethodScore:
    """One line of the table: a method and its mAP in percent."""

    name: str
    explanation: str
    mean_average_precision: float


@dataclass(frozen=True)
class Span:
    """A tag is on from `start_s` to `end_s`, seconds."""

    tag: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class TaggedFrame:
    """A frame, its time in seconds, and the names of the tags that are on with their scores."""

    image: Image
    time_s: float
    tags: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Heatmap:
    """Where a tag is: the frame `[H, W, 3]` and the similarity of its patches `[rows, cols]`."""

    tag: str
    image: Image
    values: npt.NDArray[np.float32]


@dataclass(frozen=True)
class DemoReport:
    """All contents of the page."""

    scores: tuple[MethodScore, ...]
    found: tuple[Span, ...]
    truth: tuple[Span, ...]
    frames: tuple[TaggedFrame, ...]
    heatmaps: tuple[Heatmap, ...]
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


def _draw_frames(frames: Sequence[TaggedFrame]) -> Figure:
    columns = min(3, max(1, len(frames)))
    rows = -(-len(frames) // columns) or 1
    aspect = frames[0].image.shape[1] / frames[0].image.shape[0] if frames else 1.0
    figure = _new_figure(3.3 * aspect * columns, 3.6 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, frame in zip(axes, frames, strict=False):
        axis.imshow(frame.image)
        names = ", ".join(f"{name} {score:.2f}" for name, score in frame.tags) or "nothing"
        axis.set_title(f"{frame.time_s:.1f} s  {names}", fontsize=8, color=INK, wrap=True)
    return figure


def _draw_timeline(found: Sequence[Span], truth: Sequence[Span]) -> Figure:
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


def _first_start(spans: Sequence[Span], tag: str) -> tuple[float, str]:
    return min(span.start_s for span in spans if span.tag == tag), tag


def _draw_bars(
    axis: Axes, spans: Sequence[Span], tag: str, bottom: float, height: float, colour: str
) -> None:
    bars = [(span.start_s, span.end_s - span.start_s) for span in spans if span.tag == tag]
    axis.broken_barh(bars, (bottom, height), facecolors=colour)


def _draw_heatmaps(heatmaps: Sequence[Heatmap]) -> Figure:
    image = heatmaps[0].image if heatmaps else np.zeros((1, 1, 3), np.uint8)
    figure = _new_figure(3.3 * image.shape[1] / image.shape[0] * max(1, len(heatmaps)), 3.6)
    axes = figure.subplots(1, max(1, len(heatmaps)), squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, heatmap in zip(axes, heatmaps, strict=False):
        height, width = heatmap.image.shape[:2]
        axis.imshow(heatmap.image)
        axis.imshow(
            heatmap.values,
            extent=(*_crop_columns(width, height), height, 0),
            interpolation="bicubic",
            cmap="magma",
            alpha=0.55,
        )
        axis.set_xlim(0, width)
        axis.set_ylim(height, 0)
        axis.set_title(f"where is the {heatmap.tag}?", fontsize=9, color=INK)
    return figure


def _crop_columns(width: int, height: int) -> tuple[float, float]:
    """Left and right edge of the square centre crop that the tagger sees of a wide frame."""
    side = min(width, height)
    return (width - side) / 2, (width + side) / 2

"""The report on confusable tags: lines, a picture (heat map and dendrogram), a page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics.confusable import Confusion, Pair
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.storage.outputs import refuse_unwritable, write_output

__all__ = ["check_report", "lines", "picture", "write_report"]

_MOST_ROWS = 20
_MOST_TAGS = 60  # in the picture; the most alike are shown


def lines(found: Confusion) -> Iterator[str]:
    """The report as text."""
    looked = f", {found.frames} frames" if found.frames else ", no frames given"
    yield f"{len(found.names)} tags{looked}"
    yield from _listed("near-duplicates in the bank", [_line(p) for p in found.near_duplicates])
    if found.frames:
        yield from _listed("on together", [_line(pair) for pair in found.fire_together])
        yield from _listed("never on", list(found.never_on))
    yield from _listed("no text named them", list(found.no_text))


def check_report(path: str) -> None:
    """Before any frame is scored: whether a report can be drawn here and written there.

    Raises:
        InputError: another suffix than .png and .html, or no place to write to.
        MissingDependencyError: matplotlib or scipy is not installed.
    """
    if Path(path).suffix.lower() not in (".png", ".html"):
        raise InputError(f"--report {path}: expected a name that ends in .png or .html")
    refuse_unwritable(path)
    with optional_packages("a picture or page (--report)", "demo"):
        import scipy.cluster  # noqa: F401


def picture(found: Confusion) -> bytes:
    """A PNG: tags in the order of a dendrogram, and how alike or how often together they are."""
    from matplotlib.figure import Figure
    from scipy.cluster.hierarchy import dendrogram, linkage
    from scipy.spatial.distance import squareform

    shown = _most_alike(found.alike)
    alike = found.alike[np.ix_(shown, shown)]
    panels = 1 if found.together is None else 2
    side = 2.5 + 0.11 * len(shown)
    figure = Figure(figsize=(1.5 + panels * side, side), layout="constrained", dpi=80)
    axes = figure.subplots(1, panels + 1, width_ratios=[0.25, *[1] * panels], squeeze=False)[0]
    order = np.arange(len(shown))
    if len(shown) > 1:
        tree = linkage(squareform(np.clip(1 - alike, 0, 2), checks=False), "average")
        leaves = dendrogram(
            tree,
            orientation="left",
            no_labels=True,
            ax=axes[0],
            color_threshold=0,
            above_threshold_color="0.3",
        )["leaves"]
        order = np.array(leaves)
        axes[0].invert_yaxis()
    axes[0].set_axis_off()
    names = [found.names[shown[index]] for index in order]
    _heat(figure, axes[1], alike[np.ix_(order, order)], names, "alike in the bank")
    if found.together is not None:
        places = shown[order]
        _heat(figure, axes[2], found.together[np.ix_(places, places)], names, "on together")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def write_report(found: Confusion, path: str) -> None:
    """Write a .png, or an .html page with the picture in it, in one step.

    Raises:
        InputError, MissingDependencyError: as `check_report`, or the disk is full.
    """
    check_report(path)
    drawn = picture(found)
    is_png = Path(path).suffix.lower() == ".png"
    write_output(path, drawn if is_png else _page(found, drawn).encode())


def _most_alike(alike: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    nearest = (alike - 2 * np.eye(len(alike))).max(axis=1)
    return np.sort(np.argsort(-nearest, kind="stable")[:_MOST_TAGS])


def _heat(
    figure: Any, axes: Any, matrix: npt.NDArray[np.float64], names: list[str], title: str
) -> None:
    image = axes.imshow(matrix, vmin=0, vmax=1, cmap="magma_r", aspect="auto")
    axes.set_title(title, fontsize=9)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axes.set_yticks(range(len(names)), names, fontsize=6)
    figure.colorbar(image, ax=axes, shrink=0.6).ax.tick_params(labelsize=6)


def _listed(title: str, entries: list[str]) -> Iterator[str]:
    yield f"\n{title}: {len(entries) or 'none'}"
    yield from (f"  {entry}" for entry in entries[:_MOST_ROWS])
    if len(entries) > _MOST_ROWS:
        yield f"  … and {len(entries) - _MOST_ROWS} more"


def _line(pair: Pair) -> str:
    names = f"{pair.first} and {pair.second}"
    if pair.frames:
        return f"{names}: both in {pair.frames} frames, {pair.together:.0%} of those with either"
    return f"{names}: cosine {pair.alike:.2f} about the bank's mean"


def _page(found: Confusion, drawn: bytes) -> str:
    text = html.escape("\n".join(lines(found)))
    image = base64.b64encode(drawn).decode()
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Confusable tags</title>"
        "<h1>Confusable tags</h1>"
        f"<img alt='how alike the tags are' src='data:image/png;base64,{image}'>"
        f"<pre>{text}</pre></html>\n"
    )

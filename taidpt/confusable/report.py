"""The report on confusable tags: lines, a picture (heat maps in a dendrogram's order), a page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from taidpt.confusable.pairs import Confusion, Pair
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.storage.outputs import refuse_unwritable, write_output

__all__ = ["check_report", "lines", "write_report"]

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
        import matplotlib  # noqa: F401
        import scipy.cluster  # noqa: F401


def write_report(found: Confusion, path: str) -> None:
    """Write a .png, or an .html page with the picture in it, in one step.

    Raises:
        InputError, MissingDependencyError: as `check_report`, or the disk is full.
    """
    check_report(path)
    drawn = _picture(found)
    if Path(path).suffix.lower() == ".html":
        text, image = html.escape("\n".join(lines(found))), base64.b64encode(drawn).decode()
        drawn = (
            "<!doctype html><html lang='en'><meta charset='utf-8'><title>Confusable tags</title>"
            "<h1>Confusable tags</h1>"
            f"<img alt='how alike the tags are' src='data:image/png;base64,{image}'>"
            f"<pre>{text}</pre></html>\n"
        ).encode()
    write_output(path, drawn)


def _picture(found: Confusion) -> bytes:
    """A PNG: how alike tags are and how often they are on together, alike tags side by side."""
    from matplotlib.figure import Figure
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    nearest = (found.alike - 2 * np.eye(len(found.alike))).max(axis=1)
    order = np.sort(np.argsort(-nearest, kind="stable")[:_MOST_TAGS])
    if len(order) > 1:
        apart = np.clip(1 - found.alike[np.ix_(order, order)], 0, 2)
        order = order[leaves_list(linkage(squareform(apart, checks=False), "average"))]
    panels = {"alike in the bank": found.alike}
    if found.together is not None:
        panels["on together"] = found.together
    names, side = [found.names[index] for index in order], 2.5 + 0.11 * len(order)
    figure = Figure(figsize=(0.5 + len(panels) * side, side), layout="constrained", dpi=80)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, matrix) in zip(row, panels.items(), strict=True):
        image = axes.imshow(matrix[np.ix_(order, order)], vmin=0, vmax=1, cmap="magma_r")
        axes.set_title(title, fontsize=9)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
        axes.set_yticks(range(len(names)), names, fontsize=6)
        figure.colorbar(image, ax=axes, shrink=0.6).ax.tick_params(labelsize=6)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


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

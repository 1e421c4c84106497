"""The report on confusable tags: lines, a page, a picture; tags in a dendrogram's order."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taidpt.confusable.pairs import Confusion, Pair
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.pages.matrix import matrix
from taidpt.runtime.pages.page import page
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
        MissingDependencyError: scipy, or for a .png matplotlib, is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".html"):
        raise InputError(f"--report {path}: expected a name that ends in .png or .html")
    refuse_unwritable(path)
    with optional_packages("a report (--report)", "calibrate"):
        import scipy.cluster  # noqa: F401
    if suffix == ".png":
        with optional_packages("a picture (--report FILE.png)", "demo"):
            import matplotlib  # noqa: F401


def write_report(found: Confusion, path: str) -> None:
    """Write a .png, or an .html page, in one step.

    Raises:
        InputError, MissingDependencyError: as `check_report`, or the disk is full.
    """
    check_report(path)
    draw = _page if Path(path).suffix.lower() == ".html" else _picture
    write_output(path, draw(found))


def _page(found: Confusion) -> bytes:
    frames = f"{found.frames} frames" if found.frames else "no frames given"
    order, parts = _order(found), []
    parts.append(_table("Near-duplicates in the bank", "cosine", found.near_duplicates))
    if found.frames:
        parts.append(_table("On together", "share", found.fire_together))
        parts.append(_names("Never on", found.never_on))
    parts.append(_names("No text named them", found.no_text))
    for title, values in _panels(found).items():
        names = [found.names[index] for index in order]
        parts.append(f"<h2>{title}</h2>\n{matrix(names, values[np.ix_(order, order)])}")
    return page("Confusable tags", "".join(parts), f"{len(found.names)} tags, {frames}")


def _table(title: str, column: str, pairs: Sequence[Pair]) -> str:
    if not pairs:
        return f'<h2>{title}</h2>\n<p class="soft">none</p>\n'
    rows = "".join(
        f"<tr><td>{html.escape(pair.first)}</td><td>{html.escape(pair.second)}</td>"
        f'<td class="number">{pair.together if pair.frames else pair.alike:.2f}</td></tr>'
        for pair in pairs[:_MOST_ROWS]
    )
    more = len(pairs) - _MOST_ROWS
    rest = f'<p class="soft">and {more} more</p>\n' if more > 0 else ""
    head = f'<thead><tr><th>tag</th><th>tag</th><th class="number">{column}</th></tr></thead>'
    return (
        f'<h2>{title}</h2>\n<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>\n'
        f"{rest}"
    )


def _names(title: str, names: Sequence[str]) -> str:
    shown = ", ".join(map(html.escape, names)) if names else '<span class="soft">none</span>'
    return f"<h2>{title}</h2>\n<p>{shown}</p>\n"


def _panels(found: Confusion) -> dict[str, npt.NDArray[np.float64]]:
    panels = {"Alike in the bank": found.alike}
    if found.together is not None:
        panels["On together, by pair"] = found.together
    return panels


def _order(found: Confusion) -> list[int]:
    """The tags that are most alike to another, with tags that are alike side by side."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    nearest = (found.alike - 2 * np.eye(len(found.alike))).max(axis=1)
    order = np.sort(np.argsort(-nearest, kind="stable")[:_MOST_TAGS])
    if len(order) > 1:
        apart = np.clip(1 - found.alike[np.ix_(order, order)], 0, 2)
        order = order[leaves_list(linkage(squareform(apart, checks=False), "average"))]
    return [int(index) for index in order]


def _picture(found: Confusion) -> bytes:
    """A PNG: how alike tags are and how often they are on together, alike tags side by side."""
    from matplotlib.figure import Figure

    order, panels = _order(found), _panels(found)
    names, side = [found.names[index] for index in order], 2.5 + 0.11 * len(order)
    figure = Figure(figsize=(0.5 + len(panels) * side, side), layout="constrained", dpi=80)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, values) in zip(row, panels.items(), strict=True):
        image = axes.imshow(values[np.ix_(order, order)], vmin=0, vmax=1, cmap="magma_r")
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

"""Plots of a comparison, through matplotlib: classes, precision over recall, merge weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.comparison import Comparison, MethodResult, merge_curve, merged_head
from taidpt.runtime.errors import MissingDependencyError

__all__ = ["draw_comparison"]

_RECALLS = np.linspace(0, 1, 101)


def draw_comparison(comparison: Comparison, folder: Path) -> tuple[Path, ...]:
    """Write per-class.png, precision-recall.png and merge-weight.png.

    Args:
        comparison: methods on a data set.
        folder: made when it is not there.
    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("plots need matplotlib: pip install 'taidpt[demo]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in (
        ("per-class", _classes),
        ("precision-recall", _precision_recall),
        ("merge-weight", _merge_weight),
    ):
        height = 1.5 + 0.18 * len(comparison.images.classes) if draw is _classes else 4.5
        figure = Figure(figsize=(7, height), layout="constrained")
        draw(figure.add_subplot(), comparison)
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1], dpi=120)
    return tuple(written)


def _classes(axes: Any, comparison: Comparison) -> None:
    """Average precision of each class, a dot a method, best classes of the last method on top."""
    best = [result.maps.get("merged", result.maps["global"]) for result in comparison.results]
    order = np.argsort(np.nan_to_num(best[-1].per_class), kind="stable")
    rows = np.arange(len(order))
    for result, found in zip(comparison.results, best, strict=True):
        axes.plot(found.per_class[order], rows, "o", markersize=4, label=result.name)
    axes.set_yticks(rows, [comparison.images.classes[index] for index in order], fontsize=7)
    axes.set_ylim(-1, len(rows))
    axes.set_xlabel("average precision, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _precision_recall(axes: Any, comparison: Comparison) -> None:
    """Interpolated precision at 101 recalls, averaged over classes."""
    for result in comparison.results:
        axes.plot(_RECALLS, _mean_precision(result, comparison), label=result.name)
    axes.set(xlabel="recall", ylabel="precision, mean over classes", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _mean_precision(result: MethodResult, comparison: Comparison) -> npt.NDArray[np.float64]:
    scores = merged_head(result.scores, comparison.merge_weight)
    curves = []
    for index in range(scores.shape[1]):
        truth = comparison.images.targets[:, index]
        kept = (
            truth != 0 if comparison.settings.difficult == "ignore" else np.ones(len(truth), bool)
        )
        hits = truth[kept][np.argsort(-scores[kept, index], kind="stable")] > 0
        if hits.any():
            right = np.cumsum(hits)
            precision = right / np.arange(1, len(hits) + 1)
            # from the right: the best precision at this recall or any higher one
            ceiling = np.maximum.accumulate(precision[::-1])[::-1]
            curves.append(ceiling[np.searchsorted(right / right[-1], _RECALLS)])
    mean: npt.NDArray[np.float64] = np.mean(curves, axis=0)
    return mean


def _merge_weight(axes: Any, comparison: Comparison) -> None:
    for result in comparison.results:
        curve = merge_curve(result, comparison.images, comparison.settings)
        if curve:
            axes.plot(*zip(*curve, strict=True), marker="o", markersize=3, label=result.name)
    axes.set(xlabel="merge weight (0: global alone, 1: local alone)", ylabel="mAP, %")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)

"""Plots of scores with matplotlib: per class, precision over recall, over merge weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.evaluation.comparison import MethodTable, merge_curve, merged_head
from taidpt.evaluation.methods import HeadScores
from taidpt.evaluation.saved_scores import ScaledTransform
from taidpt.metrics import MapSettings, mean_average_precision
from taidpt.runtime.optional import optional_packages
from taidpt.score_file import ScoreFile

__all__ = ["Drawing", "draw"]

_RECALLS = np.linspace(0, 1, 101)
_MOST_BARS = 4  # per class: a fifth bar would be thinner than its label's line, so dots are drawn


@dataclass(frozen=True)
class Drawing:
    """Scores to draw.

    Attributes:
        classes: C names.
        targets: 1, 0 or −1, [N, C].
        series: name → its heads' scores, [N, C] each.
        merge_weight: the local head's share.
        settings: which mAP.
    """

    classes: tuple[str, ...]
    targets: npt.NDArray[Any]
    series: Mapping[str, HeadScores]
    merge_weight: float
    settings: MapSettings

    @classmethod
    def of_comparison(cls, found: MethodTable) -> Drawing:
        """One series per method."""
        series = {result.name: result.scores for result in found.results}
        images = found.images
        return cls(images.classes, images.targets, series, found.merge_weight, found.settings)

    @classmethod
    def of_scores(
        cls,
        scores: ScoreFile,
        merge_weight: float,
        settings: MapSettings,
        transform: ScaledTransform = ScaledTransform(),
    ) -> Drawing:
        """One series per head; the curve over merge weights needs scores without a transform."""
        heads = {"global": scores.global_scores, "local": scores.local_scores}
        series = {name: {"global": transform(matrix)} for name, matrix in heads.items()}
        if transform.name != "none":
            heads = {"global": transform(scores.merged(merge_weight))}
        return cls(scores.names, scores.labels, {**series, "merged": heads}, merge_weight, settings)

    def merged(self, name: str) -> npt.NDArray[Any]:
        """A series' merged scores, [N, C]."""
        return merged_head(self.series[name], self.merge_weight)


def draw(drawing: Drawing, folder: Path) -> tuple[Path, ...]:
    """Write per-class.png, precision-recall.png and merge-weight.png.

    Args:
        drawing: the scores.
        folder: created if missing.
    Returns:
        the three paths.
    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    with optional_packages("plotting", "demo"):
        from matplotlib.figure import Figure
    folder.mkdir(parents=True, exist_ok=True)
    bars = min(len(drawing.series), _MOST_BARS)
    written = []
    for name, plot, height in (
        ("per-class", _classes, 1.5 + (0.1 + 0.1 * bars) * len(drawing.classes)),
        ("precision-recall", _precision_recall, 4.5),
        ("merge-weight", _merge_weight, 4.5),
    ):
        figure = Figure(figsize=(7, height), layout="constrained")
        plot(figure.add_subplot(), drawing)
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1], dpi=120)
    return tuple(written)


def _classes(axes: Any, drawing: Drawing) -> None:
    """Average precision of each class, sorted by the last series: bars, or dots for many series."""
    found = {
        name: mean_average_precision(drawing.merged(name), drawing.targets, drawing.settings)
        for name in drawing.series
    }
    order = np.argsort(np.nan_to_num([*found.values()][-1].per_class), kind="stable")
    rows, count = np.arange(len(order)), len(found)
    for index, (name, item) in enumerate(found.items()):
        values = np.nan_to_num(item.per_class[order])
        if count > _MOST_BARS:
            axes.plot(values, rows, "o", markersize=4, label=name)
        else:
            thickness = 0.8 / count
            shift = (count - 1) / 2 - index
            axes.barh(rows + thickness * shift, values, thickness, label=name)
    axes.set_yticks(rows, [drawing.classes[index] for index in order], fontsize=7)
    axes.set_ylim(-1, len(rows))
    axes.set_xlabel("average precision, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _precision_recall(axes: Any, drawing: Drawing) -> None:
    """Interpolated precision at 101 recalls, averaged over classes."""
    for name in drawing.series:
        axes.plot(_RECALLS, _mean_precision(name, drawing), label=name)
    axes.set(xlabel="recall", ylabel="precision, mean over classes", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _mean_precision(name: str, drawing: Drawing) -> npt.NDArray[np.float64]:
    scores = drawing.merged(name)
    curves = []
    for index in range(scores.shape[1]):
        truth = drawing.targets[:, index]
        kept = truth != 0 if drawing.settings.difficult == "ignore" else np.ones(len(truth), bool)
        hits = truth[kept][np.argsort(-scores[kept, index], kind="stable")] > 0
        if hits.any():
            right = np.cumsum(hits)
            precision = right / np.arange(1, len(hits) + 1)
            # interpolated precision: the best at this recall or any higher one
            ceiling = np.maximum.accumulate(precision[::-1])[::-1]
            curves.append(ceiling[np.searchsorted(right / right[-1], _RECALLS)])
    mean: npt.NDArray[np.float64] = np.mean(curves, axis=0)
    return mean


def _merge_weight(axes: Any, drawing: Drawing) -> None:
    for name, scores in drawing.series.items():
        curve = merge_curve(scores, drawing.targets, drawing.settings)
        if curve:
            axes.plot(*zip(*curve, strict=True), marker="o", markersize=3, label=name)
    axes.set(xlabel="merge weight (0: global alone, 1: local alone)", ylabel="mAP, %")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8)

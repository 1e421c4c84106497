"""Multi-label metrics over score matrices, in NumPy.

Targets are 1 for positive, −1 for negative, 0 for "difficult" or unknown. TaI-DPT's authors count
0 as negative; the VOC protocol ignores such pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError

__all__ = [
    "MapSettings",
    "MeanAveragePrecision",
    "PrecisionRecall",
    "average_precision",
    "mean_average_precision",
    "precision_recall",
    "top_k_predictions",
]

Scores = npt.NDArray[np.floating[Any]]
Targets = npt.NDArray[np.integer[Any]]

DIFFICULT = ("negative", "ignore")
INTERPOLATIONS = ("none", "11point")
EMPTY_CLASS = ("skip", "zero")


@dataclass(frozen=True)
class MapSettings:
    """The definition of mean average precision.

    Attributes:
        difficult: pairs with target 0 count as "negative" (the authors) or not at all ("ignore",
            VOC).
        interpolation: "none" (Σ precision at positives / positives) or VOC2007's "11point".
        empty_class: a class without positives is omitted ("skip") or counts as 0 ("zero").
    """

    difficult: str = "negative"
    interpolation: str = "none"
    empty_class: str = "skip"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("difficult", DIFFICULT),
            ("interpolation", INTERPOLATIONS),
            ("empty_class", EMPTY_CLASS),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} {getattr(self, name)!r}: expected {' or '.join(allowed)}")


@dataclass(frozen=True)
class MeanAveragePrecision:
    """mAP in percent.

    Attributes:
        value: the macro mean × 100; NaN when no class has a positive.
        per_class: average precision of each class × 100, [C]; NaN without positives.
        empty: indices of the classes without positives.
    """

    value: float
    per_class: npt.NDArray[np.float64]
    empty: tuple[int, ...]


def average_precision(scores: Scores, positive: npt.NDArray[np.bool_], interpolation: str) -> float:
    """Average precision of one class, 0 to 1; NaN without a positive.

    Args:
        scores: [N]; equal scores keep their order.
        positive: True for positives, [N].
        interpolation: "none" or "11point" (Everingham et al. 2010, section 3.4.1).
    """
    total = int(positive.sum())
    if total == 0:
        return float("nan")
    hits = positive[np.argsort(-scores, kind="stable")]
    true_positives = np.cumsum(hits)
    precision = true_positives / np.arange(1, len(hits) + 1)
    if interpolation == "none":
        return float(precision[hits].sum() / total)
    recall = true_positives / total
    best = [precision[recall >= level].max() for level in np.linspace(0, 1, 11)]
    return float(np.mean(best))


def mean_average_precision(
    scores: Scores, targets: Targets, settings: MapSettings = MapSettings()
) -> MeanAveragePrecision:
    """mAP over classes.

    Args:
        scores: [N, C], finite.
        targets: [N, C] of 1, 0 and −1; see the module.
        settings: the definition.
    Raises:
        InputError: shapes differ, a score is NaN, or a target has another value.
    """
    _check(scores, targets)
    values = np.full(scores.shape[1], np.nan)
    for index in range(scores.shape[1]):
        kept = slice(None) if settings.difficult == "negative" else targets[:, index] != 0
        column, truth = scores[kept, index], targets[kept, index] > 0
        values[index] = average_precision(column, truth, settings.interpolation)
    empty = np.isnan(values)
    counted = np.where(empty, 0.0, values) if settings.empty_class == "zero" else values[~empty]
    mean = float(counted.mean() * 100) if len(counted) else float("nan")
    return MeanAveragePrecision(mean, values * 100, tuple(np.flatnonzero(empty).tolist()))


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision, recall and F1 in percent: overall (O) and as the mean over classes (C).

    A class that is never predicted has precision 0 and one without positives has recall 0, as in
    the multi-label literature; CF1 is the harmonic mean of CP and CR.
    """

    overall_precision: float
    overall_recall: float
    overall_f1: float
    class_precision: float
    class_recall: float
    class_f1: float
    macro_f1: float


def precision_recall(
    predicted: npt.NDArray[np.bool_],
    targets: Targets,
    classes: Sequence[int] | None = None,
    difficult: str = "negative",
) -> PrecisionRecall:
    """Precision and recall of decisions.

    Args:
        predicted: [N, C].
        targets: [N, C]; positive where above 0.
        classes: indices of the classes that count, None for all.
        difficult: pairs with target 0 count as "negative" or not at all ("ignore").
    """
    columns = slice(None) if classes is None else list(classes)
    decided, truth = predicted[:, columns], targets[:, columns] > 0
    if difficult == "ignore":
        decided = decided & (targets[:, columns] != 0)
    right = (decided & truth).sum(0).astype(float)
    chosen, actual = decided.sum(0), truth.sum(0)
    precision, recall = _ratio(right, chosen), _ratio(right, actual)
    overall = float(_ratio(right.sum(), chosen.sum())), float(_ratio(right.sum(), actual.sum()))
    by_class = float(precision.mean()), float(recall.mean())
    macro = float(_ratio(2 * right, chosen + actual).mean())
    rates = (*overall, _f1(*overall), *by_class, _f1(*by_class), macro)
    return PrecisionRecall(*(100 * rate for rate in rates))


def top_k_predictions(scores: Scores, k: int) -> npt.NDArray[np.bool_]:
    """True for the k best classes of each row, [N, C]; ties are broken by class order."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    chosen = np.zeros(scores.shape, bool)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen


def _check(scores: Scores, targets: Targets) -> None:
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise InputError(f"scores {scores.shape} and targets {targets.shape} should both be [N, C]")
    wrong = np.isnan(scores)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(
            f"{int(wrong.sum())} scores are NaN, the first at row {row}, class {column}"
        )
    if not np.isin(targets, (-1, 0, 1)).all():
        raise InputError(f"targets should be 1, 0 or −1, got {np.unique(targets)[:6].tolist()}")


def _ratio(part: Any, whole: Any) -> npt.NDArray[np.float64]:
    whole = np.asarray(whole, float)
    ratio: npt.NDArray[np.float64] = np.zeros_like(whole)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _f1(precision: float, recall: float) -> float:
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0

"""Evaluation of saved scores without a model: mAP and F1 of each head, and ensembles of two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.evaluation.table import Table, json_ready
from taidpt.metrics import (
    MapSettings,
    MeanAveragePrecision,
    PrecisionRecall,
    mean_average_precision,
    precision_recall,
    top_k_predictions,
)
from taidpt.runtime.errors import InputError
from taidpt.score_file import ScoreFile
from taidpt.score_transforms import SCORE_TRANSFORMS, transform_scores

__all__ = [
    "DecisionRule",
    "Evaluation",
    "ScaledTransform",
    "class_table",
    "decision_rates",
    "empty_note",
    "ensemble_scores",
    "evaluate_scores",
    "map_json",
    "rates_line",
]

_MOST_NAMES = 100  # classes without a positive named on one line; the JSON has all

_RATES = (
    ("CP", "class_precision"),
    ("CR", "class_recall"),
    ("CF1", "class_f1"),
    ("OP", "overall_precision"),
    ("OR", "overall_recall"),
    ("OF1", "overall_f1"),
)

Matrix = npt.NDArray[Any]


@dataclass(frozen=True)
class DecisionRule:
    """How scores become decisions: the k best of each picture, or all from a threshold on."""

    top_k: int | None = None
    threshold: float | None = None

    @property
    def label(self) -> str:
        """Such as "top-3" or "≥ 0.5"."""
        return f"≥ {self.threshold:g}" if self.top_k is None else f"top-{self.top_k}"

    def __call__(self, scores: Matrix) -> npt.NDArray[np.bool_]:
        """Decisions, [N, C]."""
        if self.top_k is not None:
            return top_k_predictions(scores, self.top_k)
        return np.asarray(scores >= self.threshold)


@dataclass(frozen=True)
class ScaledTransform:
    """A score transform after a factor on the scores, such as `log_softmax(4 · score)`."""

    name: str = "none"
    factor: float = 1.0

    @classmethod
    def parse(cls, text: str) -> ScaledTransform:
        """Read NAME or NAME:T.

        Raises:
            InputError: an unknown name, or a factor that is not a finite number above 0.
        """
        name, colon, number = text.partition(":")
        try:
            factor = float(number) if colon else 1.0
        except ValueError:
            factor = float("nan")
        if name not in SCORE_TRANSFORMS or not 0 < factor < float("inf"):
            raise InputError(
                f"score transform {text!r}: expected {', '.join(SCORE_TRANSFORMS)}, or one with a "
                "factor above 0, such as log_softmax:4"
            )
        return cls(name, factor)

    def __str__(self) -> str:
        return self.name if self.factor == 1 else f"{self.name}:{self.factor:g}"

    def __call__(self, scores: Matrix) -> Matrix:
        """Transformed scores, [N, C]."""
        return transform_scores(self.factor * scores, self.name)


@dataclass(frozen=True)
class Evaluation:
    """mAP of each head.

    Attributes:
        heads: "global", "local" and "merged" → mAP.
        names: the classes.
        merge_weight: the local head's share in "merged".
        settings: which mAP.
        source: where the scores came from.
        transform: applied to each head, over the tags of each picture.
        decisions: decision → head → precision, recall and F1, over the classes that count.
    """

    heads: dict[str, MeanAveragePrecision]
    names: tuple[str, ...]
    merge_weight: float
    settings: MapSettings
    source: str
    decisions: dict[str, dict[str, PrecisionRecall]] = field(default_factory=dict)
    transform: ScaledTransform = ScaledTransform()

    @property
    def empty_classes(self) -> tuple[str, ...]:
        """Names of the classes with no positive, whose average precision is undefined."""
        return tuple(self.names[index] for index in self.heads["merged"].empty)

    def lines(self, per_class: bool = False) -> Iterator[str]:
        """Lines for a terminal: one a head, then one a decision and head, then the classes."""
        for head, found in self.heads.items():
            yield f"{head:<7} mAP {found.value:.3f}"
        for label, rates_by_head in self.decisions.items():
            for head, rates in rates_by_head.items():
                yield f"{head:<7} {label}  {rates_line(rates)}"
        if self.empty_classes:
            yield empty_note(self.empty_classes, len(self.names), self.settings)
        if per_class:
            yield from class_table(self.names, self.heads).lines()

    def markdown(self) -> str:
        """A Markdown table of the heads."""
        return Table(
            ["head", "mAP"], [(key, map_.value) for key, map_ in self.heads.items()]
        ).markdown()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; undefined ones are null."""
        document = {
            "schema": 1,
            "source": self.source,
            "merge_weight": self.merge_weight,
            "score_transform": str(self.transform),
            **asdict(self.settings),
            "empty_classes": self.empty_classes,
            "decisions": {
                label: {head: asdict(rates) for head, rates in by_head.items()}
                for label, by_head in self.decisions.items()
            },
            "heads": {head: map_json(found, self.names) for head, found in self.heads.items()},
        }
        return dict(json_ready(document))


def class_table(names: Sequence[str], columns: dict[str, MeanAveragePrecision]) -> Table:
    """Average precision of every class, one column a head or method."""
    values = [found.per_class for found in columns.values()]
    rows = [(name, *(column[row] for column in values)) for row, name in enumerate(names)]
    return Table(["class", *columns], rows)


def map_json(found: MeanAveragePrecision, names: Sequence[str]) -> dict[str, Any]:
    """A mean average precision with its classes, ready for `json_ready`."""
    return {"map": found.value, "per_class": dict(zip(names, found.per_class, strict=True))}


def empty_note(names: Sequence[str], classes: int, settings: MapSettings) -> str:
    """How many of the classes have no positive, which they are, and how they count."""
    few = ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
    how = "left out" if settings.empty_class == "skip" else "counted as 0"
    return f"{len(names)} of {classes} classes have no positive, {how}: {few}"


def evaluate_scores(
    scores: ScoreFile,
    merge_weight: float = 0.5,
    settings: MapSettings = MapSettings(),
    decisions: Sequence[DecisionRule] = (),
    transform: ScaledTransform = ScaledTransform(),
) -> Evaluation:
    """mAP of the global, the local and the merged scores; F1 and its parts for decisions.

    Args:
        scores: with targets.
        merge_weight: the local head's share in the merged scores.
        settings: which mAP.
        decisions: rules to give F1 of.
        transform: applied to each head after merging, before anything is measured.
    Raises:
        InputError: no targets, no class with a positive, or a weight outside 0 … 1.
    """
    targets = scores.labels
    matrices = {
        "global": transform(scores.global_scores),
        "local": transform(scores.local_scores),
        "merged": transform(scores.merged(merge_weight)),
    }
    heads = {}
    for head, matrix in matrices.items():
        try:
            heads[head] = mean_average_precision(matrix, targets, settings)
        except InputError as error:
            raise InputError(f"{scores.source}, {head}: {error}") from None
    if np.isnan(heads["merged"].value):
        count = len(scores.names)
        raise InputError(f"{scores.source}: none of {count} classes has a positive, no mAP")
    rates = {
        decision.label: {
            head: decision_rates(decision(matrix), targets, settings)
            for head, matrix in matrices.items()
        }
        for decision in decisions
    }
    return Evaluation(heads, scores.names, merge_weight, settings, scores.source, rates, transform)


def rates_line(rates: PrecisionRecall) -> str:
    """CP, CR, CF1, OP, OR and OF1 to three decimals."""
    return "  ".join(f"{key} {getattr(rates, name):.3f}" for key, name in _RATES)


def decision_rates(
    predicted: npt.NDArray[np.bool_], targets: Matrix, settings: MapSettings
) -> PrecisionRecall:
    """Precision, recall and F1 over the classes that mAP counts too."""
    shown = np.flatnonzero((targets > 0).any(axis=0)).tolist()
    classes = shown if settings.empty_class == "skip" else None
    return precision_recall(predicted, targets, classes, settings.difficult)


def ensemble_scores(
    text: ScoreFile,
    image: ScoreFile,
    rate: float,
    weight: float = 0.5,
    image_weight: float | None = None,
) -> ScoreFile:
    """(1 − rate) · text-tuned + rate · image-tuned, both merged and min–max scaled as a whole.

    Args:
        text: scores of prompts tuned on texts.
        image: scores of prompts tuned on images, of the same pictures and classes.
        rate: the image-tuned share, 0 to 1 (0.9 for partial labels, 0.6 for few shots).
        weight: the local head's share in the merged scores of `text`.
        image_weight: the same of `image`, None for `weight`. DualCoOp's published scores are those
            of its local head, 1.
    Returns:
        the combination, under both heads' names.
    Raises:
        InputError: the files do not describe the same pictures, or a matrix is constant.
    Source: the ensemble of Guo et al. 2023, section 4.3.
    """
    if not 0 <= rate <= 1:
        raise InputError(f"rate should be from 0 to 1, got {rate}")
    targets = text.labels
    if targets.shape != image.labels.shape:
        raise InputError(
            f"{text.source} is {targets.shape} and {image.source} {image.labels.shape}; "
            "an ensemble needs the same pictures and classes"
        )
    if not np.array_equal(targets, image.labels):
        raise InputError(f"{text.source} and {image.source} have different targets")
    image_weight = weight if image_weight is None else image_weight
    combined: Matrix = (1 - rate) * _scaled(text, weight) + rate * _scaled(image, image_weight)
    return ScoreFile(targets, combined, combined, text.names, f"{text.source} and {image.source}")


def _scaled(scores: ScoreFile, weight: float) -> Matrix:
    """Merged scores brought to 0 … 1 by the least and the largest of all of them."""
    matrix = scores.merged(weight)
    low, high = float(matrix.min()), float(matrix.max())
    if not low < high or not np.isfinite((low, high)).all():
        raise InputError(
            f"{scores.source}: its scores are constant, infinite or NaN: nothing to scale"
        )
    scaled: Matrix = (matrix - low) / (high - low)
    return scaled

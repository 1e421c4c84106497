"""Methods side by side on one data set: one pass over the pictures, one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.datasets.base import LabelledImages
from taidpt.encoders.picture_input import PictureInput
from taidpt.evaluation.methods import Bench, HeadScores, score_method
from taidpt.evaluation.score_file import Decision, ScoreFile, decision_rates, empty_note, rates_line
from taidpt.features.picture_store import StoredFeatures
from taidpt.metrics import MapSettings, MeanAveragePrecision, mean_average_precision
from taidpt.score_transforms import transform_scores

__all__ = [
    "COLUMNS",
    "Comparison",
    "MethodResult",
    "compare_methods",
    "group_means",
    "merge_curve",
    "merged_head",
]

# what is done to a method's scores → the table's column
COLUMNS = ("global", "local", "merged", "center", "log_softmax")


@dataclass(frozen=True)
class MethodResult:
    """A method on a data set.

    Attributes:
        name: of the method.
        scores: "global" and perhaps "local", [N, C].
        maps: column → mAP; "center" and "log_softmax" are of the merged scores after the transform
            over each picture's tags. A method of one head has "global", "center", "log_softmax".
        groups: group of classes → mAP of the best head (merged where there is one).
    """

    name: str
    scores: HeadScores
    maps: dict[str, MeanAveragePrecision]
    groups: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> MeanAveragePrecision:
        """Of the merged scores, or of the one head that there is."""
        return self.maps.get("merged", self.maps["global"])


@dataclass(frozen=True)
class Comparison:
    """Methods on one data set.

    Attributes:
        dataset: its name.
        model: name and weights.
        images: the pictures.
        results: one a method.
        merge_weight: the local head's share.
        settings: which mAP.
        tuning: how the prompts of a method were tuned, their own record.
    """

    dataset: str
    model: str
    images: LabelledImages
    results: tuple[MethodResult, ...]
    merge_weight: float
    settings: MapSettings
    tuning: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def lines(self, per_class: bool = False, decisions: Sequence[Decision] = ()) -> Iterator[str]:
        """For a reader."""
        images = self.images
        size = f"{len(images):,} pictures, {len(images.classes)} classes"
        yield f"{images.name}: {size}; {self.model}"
        empty = self.results[0].maps["global"].empty
        if empty:
            names = [images.classes[index] for index in empty]
            yield empty_note(names, len(images.classes), self.settings)
        width = max(6, *(len(result.name) for result in self.results))
        groups = tuple(self.results[0].groups)
        yield "  ".join([f"{'method':<{width}}", *(f"{key:>11}" for key in (*COLUMNS, *groups))])
        for result in self.results:
            cells = [
                *(_cell(result, key) for key in COLUMNS),
                *map(_number, result.groups.values()),
            ]
            yield "  ".join([f"{result.name:<{width}}", *(f"{cell:>11}" for cell in cells)])
        for result, decision in product(self.results, decisions):
            yield f"{result.name:<{width}}  {self.rates(result, decision)}"
        if per_class:
            yield from self._class_lines()

    def rates(self, result: MethodResult, decision: Decision) -> str:
        """Precision, recall and F1 of a method's merged scores under a decision."""
        scores = merged_head(result.scores, self.merge_weight)
        rates = decision_rates(decision(scores), self.images.targets, self.settings)
        return f"{decision.label}  {rates_line(rates)}"

    def save_scores(self, folder: Path) -> None:
        """Write each method's scores as `METHOD.npz`, as `taidpt eval --scores` reads them."""
        folder.mkdir(parents=True, exist_ok=True)
        for result in self.results:
            self.score_file(result).save(folder / f"{result.name}.npz")

    def score_file(self, result: MethodResult) -> ScoreFile:
        """A method's scores; one of one head has it under both names."""
        whole = result.scores["global"]
        local = result.scores.get("local", whole)
        return ScoreFile(self.images.targets, whole, local, self.images.classes, result.name)

    def _class_lines(self) -> Iterator[str]:
        width = max(map(len, self.images.classes))
        names = [result.name for result in self.results]
        yield "  ".join([" " * width, *(f"{name:>11}" for name in names)])
        best = [result.best.per_class for result in self.results]
        for index, name in enumerate(self.images.classes):
            yield "  ".join([f"{name:<{width}}", *(f"{_number(ap[index]):>11}" for ap in best)])

    def markdown(self) -> str:
        """A Markdown table."""
        groups = tuple(self.results[0].groups)
        head = ["method", *COLUMNS, *groups]
        rows = [
            [
                result.name,
                *(_cell(result, key) for key in COLUMNS),
                *map(_number, result.groups.values()),
            ]
            for result in self.results
        ]
        lines = [head, ["---"] * len(head), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; undefined ones are null."""
        return {
            "schema": 1,
            "dataset": self.dataset,
            "pictures": len(self.images),
            "classes": list(self.images.classes),
            "model": self.model,
            "merge_weight": self.merge_weight,
            "difficult": self.settings.difficult,
            "interpolation": self.settings.interpolation,
            "empty_class": self.settings.empty_class,
            "methods": {result.name: self._result_json(result) for result in self.results},
            "tuning": {name: dict(record) for name, record in self.tuning.items()},
        }

    def _result_json(self, result: MethodResult) -> dict[str, Any]:
        columns = {
            column: {
                "map": _plain(found.value),
                "per_class": dict(
                    zip(self.images.classes, map(_plain, found.per_class), strict=True)
                ),
            }
            for column, found in result.maps.items()
        }
        return {**columns, "groups": {key: _plain(value) for key, value in result.groups.items()}}


def compare_methods(
    methods: Sequence[str],
    bench: Bench,
    images: LabelledImages,
    features: Callable[[PictureInput], StoredFeatures],
    merge_weight: float = 0.5,
    settings: MapSettings = MapSettings(),
) -> Comparison:
    """Score and evaluate methods.

    Args:
        methods: names, see `taidpt.evaluation.methods`.
        bench: what they are built from.
        images: N pictures with their targets.
        features: of the same pictures, by what of them is shown.
        merge_weight: the local head's share.
        settings: which mAP.
    """
    results = []
    for name in methods:
        bench.progress.note(f"{name} on {images.name}")
        scores = score_method(name, bench, features(bench.picture_of(name)))
        maps = _maps(scores, images.targets, merge_weight, settings)
        result = MethodResult(name, scores, maps)
        results.append(replace(result, groups=group_means(result.best, images)))
    model = f"{bench.clip.name}, weights {bench.clip.pretrained}"
    tuning = {name: prompts.provenance for name, prompts in bench.used.items()}
    return Comparison(images.name, model, images, tuple(results), merge_weight, settings, tuning)


def merge_curve(
    scores: HeadScores, targets: npt.NDArray[Any], settings: MapSettings, steps: int = 11
) -> list[tuple[float, float]]:
    """mAP for merge weights from 0 to 1; empty where there is one head."""
    if "local" not in scores:
        return []
    return [
        (
            float(weight),
            mean_average_precision(merged_head(scores, weight), targets, settings).value,
        )
        for weight in np.linspace(0, 1, steps)
    ]


def merged_head(scores: HeadScores, weight: float) -> npt.NDArray[Any]:
    """(1 − weight) · global + weight · local; the one head of a method that has one."""
    if "local" not in scores:
        return scores["global"]
    merged: npt.NDArray[Any] = (1 - weight) * scores["global"] + weight * scores["local"]
    return merged


def _maps(
    scores: HeadScores, targets: npt.NDArray[np.int8], weight: float, settings: MapSettings
) -> dict[str, MeanAveragePrecision]:
    merged = merged_head(scores, weight)
    columns = dict(scores)
    if "local" in scores:
        columns["merged"] = merged
    for transform in ("center", "log_softmax"):
        columns[transform] = transform_scores(merged, transform)
    return {
        column: mean_average_precision(matrix, targets, settings)
        for column, matrix in columns.items()
    }


def group_means(result: MeanAveragePrecision, images: LabelledImages) -> dict[str, float]:
    """mAP of each group of classes, over those that have a positive."""
    found = {}
    for name, members in images.groups.items():
        values = result.per_class[list(members)]
        defined = values[~np.isnan(values)]
        found[name] = float(defined.mean()) if len(defined) else float("nan")
    return found


def _cell(result: MethodResult, column: str) -> str:
    found = result.maps.get(column)
    return "–" if found is None else _number(found.value)


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

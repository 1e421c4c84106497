"""Several methods on one data set: one pass over the pictures, one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.datasets.base import LabelledImages
from taidpt.encoders.picture_input import PictureInput
from taidpt.evaluation.methods import HeadScores, MethodInputs, score_method
from taidpt.evaluation.saved_scores import (
    DecisionRule,
    ScaledTransform,
    class_table,
    decision_rates,
    empty_note,
    map_json,
    rates_line,
)
from taidpt.evaluation.table import Table, json_ready
from taidpt.features.pictures import PictureFeatures
from taidpt.metrics import MapSettings, MeanAveragePrecision, mean_average_precision
from taidpt.score_file import ScoreFile

__all__ = [
    "COLUMNS",
    "MethodResult",
    "MethodTable",
    "compare_methods",
    "group_means",
    "merge_curve",
    "merged_head",
]

# The heads of a method, and the score transforms of the merged head, as the table shows them.
COLUMNS = ("global", "local", "merged", "center", "log_softmax", "log_softmax:4")


@dataclass(frozen=True)
class MethodResult:
    """A method on a data set.

    Attributes:
        name: of the method.
        scores: "global" and perhaps "local", [N, C].
        maps: column → mAP; "center", "log_softmax" and "log_softmax:4" (of 4 × the score) are of
            the merged scores after that transform. A method of one head has no "local", "merged".
        groups: group of classes → mAP of the best head (merged where there is one).
    """

    name: str
    scores: HeadScores
    maps: dict[str, MeanAveragePrecision]
    groups: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> MeanAveragePrecision:
        """mAP of the merged scores, or of the only head."""
        return self.maps.get("merged", self.maps["global"])


@dataclass(frozen=True)
class MethodTable:
    """Methods on one data set.

    Attributes:
        dataset: its name.
        model: name and weights.
        images: the pictures.
        results: one a method.
        merge_weight: the local head's share.
        settings: which mAP.
        tuning: method → how its prompts were tuned, the prompts' own record.
    """

    dataset: str
    model: str
    images: LabelledImages
    results: tuple[MethodResult, ...]
    merge_weight: float
    settings: MapSettings
    tuning: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def table(self) -> Table:
        """One row a method: mAP of each column, then of each group of classes."""
        rows = [
            (
                result.name,
                *(maps.value if (maps := result.maps.get(key)) else None for key in COLUMNS),
                *result.groups.values(),
            )
            for result in self.results
        ]
        return Table(["method", *COLUMNS, *self.results[0].groups], rows)

    def lines(
        self, per_class: bool = False, decisions: Sequence[DecisionRule] = ()
    ) -> Iterator[str]:
        """Lines for a terminal: the table, then one a method and decision, then the classes."""
        images = self.images
        size = f"{len(images):,} pictures, {len(images.classes)} classes"
        yield f"{images.name}: {size}; {self.model}"
        empty = [images.classes[index] for index in self.results[0].maps["global"].empty]
        if empty:
            yield empty_note(empty, len(images.classes), self.settings)
        yield from self.table().lines()
        for result, decision in product(self.results, decisions):
            scores = merged_head(result.scores, self.merge_weight)
            rates = decision_rates(decision(scores), images.targets, self.settings)
            yield f"{result.name}  {decision.label}  {rates_line(rates)}"
        if per_class:
            best = {result.name: result.best for result in self.results}
            yield from class_table(images.classes, best).lines()

    def markdown(self) -> str:
        """A Markdown table."""
        return self.table().markdown()

    def save_scores(self, folder: Path) -> None:
        """Write each method's scores as `METHOD.npz`, for `taidpt research eval --scores`."""
        folder.mkdir(parents=True, exist_ok=True)
        for result in self.results:
            self.score_file(result).save(folder / f"{result.name}.npz")

    def score_file(self, result: MethodResult) -> ScoreFile:
        """A method's scores; a method of one head has it under both names."""
        whole = result.scores["global"]
        local = result.scores.get("local", whole)
        return ScoreFile(self.images.targets, whole, local, self.images.classes, result.name)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; undefined ones are null."""
        classes = self.images.classes
        document = {
            "schema": 1,
            "dataset": self.dataset,
            "pictures": len(self.images),
            "classes": classes,
            "model": self.model,
            "merge_weight": self.merge_weight,
            **asdict(self.settings),
            "methods": {
                result.name: {
                    **{key: map_json(maps, classes) for key, maps in result.maps.items()},
                    "groups": result.groups,
                }
                for result in self.results
            },
            "tuning": {name: dict(record) for name, record in self.tuning.items()},
        }
        return dict(json_ready(document))


def compare_methods(
    methods: Sequence[str],
    inputs: MethodInputs,
    images: LabelledImages,
    features: Callable[[PictureInput], PictureFeatures],
    merge_weight: float = 0.5,
    settings: MapSettings = MapSettings(),
) -> MethodTable:
    """Score and evaluate methods.

    Args:
        methods: names, see `taidpt.evaluation.methods`.
        inputs: what they are built from.
        images: N pictures with their targets.
        features: of the same pictures, for a size and crop.
        merge_weight: the local head's share.
        settings: which mAP.
    Raises:
        InputError: an unknown method, or one whose texts or prompts are missing.
    """
    results = []
    for name in methods:
        inputs.progress.note(f"{name} on {images.name}")
        scores = score_method(name, inputs, features(inputs.picture_of(name)))
        maps = _maps(scores, images.targets, merge_weight, settings)
        result = MethodResult(name, scores, maps)
        results.append(replace(result, groups=group_means(result.best, images)))
    model = f"{inputs.clip.name}, weights {inputs.clip.pretrained}"
    tuning = {name: prompts.provenance for name, prompts in inputs.used.items()}
    return MethodTable(images.name, model, images, tuple(results), merge_weight, settings, tuning)


def merge_curve(
    scores: HeadScores, targets: npt.NDArray[Any], settings: MapSettings, steps: int = 11
) -> list[tuple[float, float]]:
    """(merge weight, mAP) for weights from 0 to 1; empty for a method of one head."""
    if "local" not in scores:
        return []
    weights = map(float, np.linspace(0, 1, steps))
    return [
        (weight, mean_average_precision(merged_head(scores, weight), targets, settings).value)
        for weight in weights
    ]


def merged_head(scores: HeadScores, weight: float) -> npt.NDArray[Any]:
    """(1 − weight) · global + weight · local; the only head where there is one."""
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
    for transform in COLUMNS[3:]:
        columns[transform] = ScaledTransform.parse(transform)(merged)
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

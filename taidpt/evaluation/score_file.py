"""Saved scores evaluated with no model: the file's form, its heads, the table, and ensembles.

A score file is an `.npz` with `targets`, `global` and `local`, each `[N, C]`, and if you like
`names` `[C]`. Target 1 is positive, −1 negative, 0 difficult or unknown; in a file with no −1, 0 is
negative.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.metrics import (
    MapSettings,
    MeanAveragePrecision,
    PrecisionRecall,
    mean_average_precision,
    precision_recall,
    top_k_predictions,
)
from taidpt.runtime.errors import InputError

__all__ = [
    "HEADS",
    "Decision",
    "Evaluation",
    "ScoreFile",
    "decision_rates",
    "empty_note",
    "ensemble_scores",
    "evaluate_scores",
    "rates_line",
]

HEADS = ("global", "local", "merged")
_KEYS = ("targets", "global", "local")
_MOST_NAMES = 100  # classes without a positive that a line names; JSON has all

Matrix = npt.NDArray[Any]


_PRECISION_RECALL = (
    ("CP", "class_precision"),
    ("CR", "class_recall"),
    ("CF1", "class_f1"),
    ("OP", "overall_precision"),
    ("OR", "overall_recall"),
    ("OF1", "overall_f1"),
)


@dataclass(frozen=True)
class Decision:
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
class ScoreFile:
    """Scores and truth of a data set.

    Attributes:
        targets: 1, 0 or −1, [N, C].
        global_scores, local_scores: [N, C].
        names: the classes' names; their numbers where the file gives none.
        source: where it was read.
    """

    targets: Matrix
    global_scores: Matrix
    local_scores: Matrix
    names: tuple[str, ...]
    source: str = "the scores"

    def __post_init__(self) -> None:
        shapes = {self.targets.shape, self.global_scores.shape, self.local_scores.shape}
        if len(shapes) != 1 or self.targets.ndim != 2:
            raise InputError(
                f"{self.source}: targets {self.targets.shape}, global {self.global_scores.shape} "
                f"and local {self.local_scores.shape} should all be [N, C]"
            )
        if 0 in self.targets.shape:
            raise InputError(f"{self.source}: no scores, its shape is {self.targets.shape}")
        if len(self.names) != self.targets.shape[1]:
            raise InputError(
                f"{self.source}: {len(self.names)} names for {self.targets.shape[1]} classes"
            )

    def merged(self, weight: float = 0.5) -> Matrix:
        """(1 − weight) · global + weight · local, [N, C]."""
        merged: Matrix = (1 - weight) * self.global_scores + weight * self.local_scores
        return merged

    @classmethod
    def load(cls, path: str | Path) -> ScoreFile:
        """Read an `.npz`; nothing in it is unpickled.

        Raises:
            InputError: it is missing, damaged, lacks a matrix, or the matrices do not fit.
        """
        file = Path(path)
        arrays = _read(file)
        missing = [key for key in _KEYS if key not in arrays]
        if missing:
            raise InputError(f"{file}: no {', '.join(missing)}; it holds {sorted(arrays)}")
        targets = arrays["targets"]
        if targets.dtype.kind not in "iubf" or not np.isin(targets, (-1, 0, 1)).all():
            raise InputError(f"{file}: targets should be 1, 0 or −1")
        targets = targets.astype(np.int8)
        if not (targets < 0).any():
            targets = np.where(targets > 0, 1, -1).astype(np.int8)
        for key in ("global", "local"):
            if arrays[key].dtype.kind not in "iubf":
                raise InputError(f"{file}: {key} should be numbers, got {arrays[key].dtype}")
        scores = [arrays[key].astype(np.float64) for key in ("global", "local")]
        names = arrays.get("names", np.arange(targets.shape[-1] if targets.ndim else 0))
        if names.ndim != 1 or names.dtype.kind not in "iuU":
            raise InputError(f"{file}: names should be C strings, got {names.dtype} {names.shape}")
        return cls(targets, scores[0], scores[1], tuple(map(str, names.tolist())), str(file))

    def save(self, path: str | Path) -> None:
        """Write the same form."""
        arrays: dict[str, Any] = {
            "targets": self.targets,
            "names": np.array(self.names),
            "global": self.global_scores,
            "local": self.local_scores,
        }
        np.savez_compressed(path, **arrays)


@dataclass(frozen=True)
class Evaluation:
    """mAP of each head.

    Attributes:
        heads: "global", "local" and "merged" → mAP.
        names: the classes.
        merge_weight: the local head's share in "merged".
        settings: which mAP.
        source: where the scores came from.
        decisions: decision → head → precision, recall and F1, over the classes that count.
    """

    heads: dict[str, MeanAveragePrecision]
    names: tuple[str, ...]
    merge_weight: float
    settings: MapSettings
    source: str
    decisions: dict[str, dict[str, PrecisionRecall]] = field(default_factory=dict)

    @property
    def empty_classes(self) -> tuple[str, ...]:
        """Names of the classes with no positive, whose average precision is undefined."""
        return tuple(self.names[index] for index in self.heads["merged"].empty)

    def lines(self, per_class: bool = False) -> Iterator[str]:
        """For a reader: a line a head, then the classes."""
        for head, found in self.heads.items():
            yield f"{head:<7} mAP {found.value:.3f}"
        for label, found_by_head in self.decisions.items():
            for head, rates in found_by_head.items():
                values = "  ".join(
                    f"{key} {getattr(rates, at):.3f}" for key, at in _PRECISION_RECALL
                )
                yield f"{head:<7} {label}  {values}"
        if self.empty_classes:
            yield self.empty_note()
        if per_class:
            width = max(map(len, self.names))
            yield f"{'':<{width}}  " + "  ".join(f"{head:>7}" for head in self.heads)
            for index, name in enumerate(self.names):
                columns = (found.per_class[index] for found in self.heads.values())
                yield f"{name:<{width}}  " + "  ".join(f"{value:7.3f}" for value in columns)

    def markdown(self) -> str:
        """A Markdown table of the heads."""
        rows = [f"| {head} | {found.value:.3f} |" for head, found in self.heads.items()]
        return "\n".join(["| head | mAP |", "|---|---|", *rows]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; undefined ones are null."""
        return {
            "schema": 1,
            "source": self.source,
            "merge_weight": self.merge_weight,
            "difficult": self.settings.difficult,
            "interpolation": self.settings.interpolation,
            "empty_class": self.settings.empty_class,
            "empty_classes": list(self.empty_classes),
            "decisions": {
                label: {head: asdict(rates) for head, rates in by_head.items()}
                for label, by_head in self.decisions.items()
            },
            "heads": {
                head: {
                    "map": _number(found.value),
                    "per_class": {
                        name: _number(value)
                        for name, value in zip(self.names, found.per_class, strict=True)
                    },
                }
                for head, found in self.heads.items()
            },
        }

    def empty_note(self) -> str:
        """How many classes have no positive, which, and how they count."""
        return empty_note(self.empty_classes, len(self.names), self.settings)


def empty_note(names: Sequence[str], classes: int, settings: MapSettings) -> str:
    """A line that says how many classes have no positive, which, and how they count."""
    few = ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
    how = "left out" if settings.empty_class == "skip" else "counted as 0"
    return f"{len(names)} of {classes} classes have no positive, {how}: {few}"


def evaluate_scores(
    scores: ScoreFile,
    merge_weight: float = 0.5,
    settings: MapSettings = MapSettings(),
    decisions: Sequence[Decision] = (),
) -> Evaluation:
    """mAP of the global, the local and the merged scores; F1 and its parts for decisions.

    Raises:
        InputError: a score is NaN, no class has a positive, or the weight is not in 0 … 1.
    """
    if not 0 <= merge_weight <= 1:
        raise InputError(f"merge weight should be from 0 to 1, got {merge_weight}")
    matrices = dict(
        zip(
            HEADS,
            (scores.global_scores, scores.local_scores, scores.merged(merge_weight)),
            strict=True,
        )
    )
    heads = {}
    for head, matrix in matrices.items():
        try:
            heads[head] = mean_average_precision(matrix, scores.targets, settings)
        except InputError as error:
            raise InputError(f"{scores.source}, {head}: {error}") from None
        if np.isnan(heads[head].value):
            count = len(scores.names)
            raise InputError(f"{scores.source}: none of {count} classes has a positive, no mAP")
    rates = {
        decision.label: {
            head: decision_rates(decision(matrix), scores.targets, settings)
            for head, matrix in matrices.items()
        }
        for decision in decisions
    }
    return Evaluation(heads, scores.names, merge_weight, settings, scores.source, rates)


def rates_line(rates: PrecisionRecall) -> str:
    """CP, CR, CF1, OP, OR and OF1 to three decimals."""
    return "  ".join(f"{key} {getattr(rates, at):.3f}" for key, at in _PRECISION_RECALL)


def decision_rates(
    predicted: npt.NDArray[np.bool_], targets: Matrix, settings: MapSettings
) -> PrecisionRecall:
    """Precision, recall and F1 over the classes that mAP counts too."""
    shown = np.flatnonzero((targets > 0).any(axis=0)).tolist()
    classes = shown if settings.empty_class == "skip" else None
    return precision_recall(predicted, targets, classes, settings.difficult)


def ensemble_scores(
    text: ScoreFile, image: ScoreFile, rate: float, weight: float = 0.5
) -> ScoreFile:
    """(1 − rate) · text-tuned + rate · image-tuned, both merged and min–max scaled as a whole.

    Args:
        text: scores of prompts tuned on texts.
        image: scores of prompts tuned on images, of the same pictures and classes.
        rate: the image-tuned share, 0 to 1 (0.9 for partial labels, 0.6 for few shots).
        weight: the local head's share in each.
    Returns:
        the combination, under both heads' names.
    Raises:
        InputError: the files do not describe the same pictures, or a matrix is constant.
    Source: the ensemble of Guo et al. 2023, section 4.3.
    """
    if not 0 <= rate <= 1:
        raise InputError(f"rate should be from 0 to 1, got {rate}")
    if text.targets.shape != image.targets.shape:
        raise InputError(
            f"{text.source} is {text.targets.shape} and {image.source} {image.targets.shape}; "
            "an ensemble needs the same pictures and classes"
        )
    if not np.array_equal(text.targets, image.targets):
        raise InputError(f"{text.source} and {image.source} have different targets")
    combined: Matrix = (1 - rate) * _scaled(text, weight) + rate * _scaled(image, weight)
    source = f"{text.source} and {image.source}"
    return ScoreFile(text.targets, combined, combined, text.names, source)


def _scaled(scores: ScoreFile, weight: float) -> Matrix:
    if not 0 <= weight <= 1:
        raise InputError(f"merge weight should be from 0 to 1, got {weight}")
    matrix = scores.merged(weight)
    low, high = float(matrix.min()), float(matrix.max())
    if not low < high or not np.isfinite((low, high)).all():
        raise InputError(
            f"{scores.source}: its scores are constant, infinite or NaN: nothing to scale"
        )
    scaled: Matrix = (matrix - low) / (high - low)
    return scaled


def _read(file: Path) -> dict[str, Matrix]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{file}: a bare array; expected an .npz with {', '.join(_KEYS)}")
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}: not a readable .npz file ({error})") from None
    except TypeError:
        raise InputError(f"{file}: expected an .npz with {', '.join(_KEYS)}") from None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

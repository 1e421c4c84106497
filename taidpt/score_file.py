"""Saved scores of pictures or texts, with or without their targets.

A score file is an `.npz` with `global` and `local`, each [N, C], and optionally `targets` [N, C]
and `names` [C]. Target 1 is positive, −1 negative, 0 difficult or unknown; in a file without any
−1, 0 is negative.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.score_transforms import transform_scores

__all__ = ["ScoreFile", "checked_scores"]

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]

_HEADS = ("global", "local")


@dataclass(frozen=True, eq=False)
class ScoreFile:
    """Scores of N pictures or texts and C tags.

    Attributes:
        targets: 1, 0 or −1, int8 [N, C]; None where nothing is labelled.
        global_scores, local_scores: one matrix a head, [N, C].
        names: C distinct names; the tags' numbers where the file gives none.
        source: the file they were read from, or the method that computed them.
    """

    targets: Targets | None
    global_scores: Floats
    local_scores: Floats
    names: tuple[str, ...]
    source: str = "the scores"

    def __post_init__(self) -> None:
        shape = self.global_scores.shape
        for name, matrix in (("local", self.local_scores), ("targets", self.targets)):
            if matrix is not None and matrix.shape != shape:
                raise InputError(
                    f"{self.source}: global {list(shape)} and {name} {list(matrix.shape)} should "
                    "be of one shape, [N, C]"
                )
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"{self.source}: scores should be [N, C], at least one of each")
        if len(self.names) != shape[1] or len(set(self.names)) != shape[1]:
            raise InputError(
                f"{self.source}: {len(self.names)} names for {shape[1]} tags; expected one each, "
                "distinct"
            )

    @property
    def labels(self) -> Targets:
        """The targets.

        Raises:
            InputError: there are none.
        """
        if self.targets is None:
            raise InputError(f"{self.source}: no targets; expected targets, global and local")
        return self.targets

    def merged(self, weight: float = 0.5, transform: str = "none") -> Floats:
        """`(1 − weight) · global + weight · local`, then the transform over tags, [N, C]."""
        if not 0 <= weight <= 1:
            raise InputError(f"merge weight should be from 0 to 1, got {weight}")
        scores = (1 - weight) * self.global_scores + weight * self.local_scores
        return transform_scores(scores, transform)

    @classmethod
    def load(cls, path: str | Path) -> ScoreFile:
        """Read an `.npz`; nothing in it is unpickled.

        Raises:
            InputError: it is missing or damaged, lacks a head, holds values that are not finite
                numbers, or its arrays do not fit each other.
        """
        arrays = _read_npz(Path(path))
        missing = [key for key in _HEADS if key not in arrays]
        if missing:
            raise InputError(
                f"{path}: no array {' and no array '.join(missing)}; expected targets, global, "
                f"local, got {', '.join(sorted(arrays)) or 'nothing'}"
            )
        whole, local = (
            checked_scores(arrays[key], f"{path}: {key}") for key in ("global", "local")
        )
        targets = _targets(arrays.get("targets"), str(path))
        names = _names(arrays.get("names"), whole.shape[1], str(path))
        return cls(targets, whole, local, names, str(path))

    def save(self, path: str | Path) -> None:
        """Write the `.npz` that `load` reads."""
        arrays: dict[str, Any] = {
            "global": self.global_scores,
            "local": self.local_scores,
            "names": np.array(self.names),
        }
        if self.targets is not None:
            arrays["targets"] = self.targets
        with Path(path).open("wb") as stream:
            np.savez_compressed(stream, **arrays)


def checked_scores(scores: npt.NDArray[Any], where: str) -> Floats:
    """Scores as float64 [N, C].

    Raises:
        InputError: not two axes, empty, not numbers, or not all finite.
    """
    if scores.ndim != 2 or 0 in scores.shape or scores.dtype.kind not in "fiu":
        raise InputError(
            f"{where} should be numbers [N, C], at least one of each; got {scores.dtype} "
            f"{list(scores.shape)}"
        )
    values = scores.astype(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{where} holds {len(bad)} values that are not finite, the first at row {row}, tag "
            f"{column}; compute them again"
        )
    return values


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected an .npz of scores") from None
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an .npz of scores ({error})") from None


def _targets(raw: npt.NDArray[Any] | None, where: str) -> Targets | None:
    if raw is None:
        return None
    if raw.dtype.kind not in "iubf" or not np.isin(raw, (-1, 0, 1)).all():
        raise InputError(f"{where}: targets should be 1, −1 or 0, or 1 and 0 alone")
    targets = raw.astype(np.int8)
    return targets if (targets < 0).any() else np.where(targets > 0, 1, -1).astype(np.int8)


def _names(raw: npt.NDArray[Any] | None, tags: int, where: str) -> tuple[str, ...]:
    names = np.arange(tags) if raw is None else raw
    if names.ndim != 1 or names.dtype.kind not in "iuU":
        raise InputError(
            f"{where}: names should be C strings, got {names.dtype} {list(names.shape)}"
        )
    return tuple(map(str, names.tolist()))

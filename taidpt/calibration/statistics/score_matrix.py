"""A matrix of scores with or without its targets, as `taidpt eval --scores` reads it."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError

__all__ = ["ScoreMatrix", "checked_scores", "transformed"]

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """What a tagger gave for N pictures and C tags.

    Attributes:
        targets: 1 has the tag, −1 has it not, 0 is left out of every measure; int8 [N, C], or
            None when nothing is labelled.
        global_scores: the global head, [N, C].
        local_scores: the local head, [N, C].
        names: C names.
    """

    targets: Targets | None
    global_scores: Floats
    local_scores: Floats
    names: tuple[str, ...]

    @classmethod
    def load(cls, path: str | Path) -> ScoreMatrix:
        """Read an .npz with `global`, `local`, and maybe `targets` and `names`.

        A `targets` without any −1 is read as {0, 1}.

        Raises:
            InputError: it cannot be read, or its arrays do not fit each other.
        """
        arrays = _read_npz(Path(path))
        missing = [key for key in ("global", "local") if key not in arrays]
        if missing:
            raise InputError(
                f"{path}: no array {' and no array '.join(missing)}; expected targets, global, "
                f"local, got {', '.join(sorted(arrays)) or 'nothing'}"
            )
        global_scores = checked_scores(arrays["global"], f"{path}: global")
        local_scores = checked_scores(arrays["local"], f"{path}: local")
        if global_scores.shape != local_scores.shape:
            raise InputError(
                f"{path}: global {list(global_scores.shape)} and local "
                f"{list(local_scores.shape)} should be of one shape"
            )
        targets = _targets(arrays.get("targets"), global_scores.shape, str(path))
        names = _names(arrays.get("names"), global_scores.shape[1], str(path))
        return cls(targets, global_scores, local_scores, names)

    def save(self, path: str | Path) -> None:
        """Write the .npz that `load` reads."""
        arrays: dict[str, Any] = {
            "global": self.global_scores,
            "local": self.local_scores,
            "names": np.array(self.names),
        }
        if self.targets is not None:
            arrays["targets"] = self.targets
        with Path(path).open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    def merged(self, weight: float = 0.5, transform: str = "none") -> Floats:
        """`(1 − weight) · global + weight · local`, then the transform over tags, [N, C]."""
        scores = (1 - weight) * self.global_scores + weight * self.local_scores
        return transformed(scores, transform)


def transformed(scores: Floats, transform: str) -> Floats:
    """Normalise each picture's scores over its tags: none, center or log_softmax.

    Raises:
        InputError: another word.
    """
    if transform == "none":
        return scores
    if transform == "center":
        return np.asarray(scores - scores.mean(axis=1, keepdims=True))
    if transform == "log_softmax":
        top = scores.max(axis=1, keepdims=True)
        total = np.exp(scores - top).sum(axis=1, keepdims=True)
        return np.asarray(scores - top - np.log(total))
    raise InputError(f"score transform {transform!r}: expected one of none, center, log_softmax")


def checked_scores(scores: npt.NDArray[Any], where: str) -> Floats:
    """Scores as float64 [N, C].

    Raises:
        InputError: not two axes, empty, not numbers, or not all finite.
    """
    if scores.ndim != 2 or 0 in scores.shape or scores.dtype.kind not in "fiu":
        raise InputError(
            f"{where} should be numbers [pictures, tags], at least one of each; got "
            f"{scores.dtype} {list(scores.shape)}"
        )
    values = scores.astype(np.float64)
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(f"{where} holds {bad} values that are not finite; score those anew")
    return values


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected an .npz of scores") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an .npz of scores ({error})") from None


def _targets(raw: npt.NDArray[Any] | None, shape: tuple[int, ...], where: str) -> Targets | None:
    if raw is None:
        return None
    if raw.shape != shape:
        raise InputError(
            f"{where}: targets {list(raw.shape)} and scores {list(shape)} should be of one shape"
        )
    if not np.isin(raw, (-1, 0, 1)).all():
        raise InputError(f"{where}: targets should be 1, −1 or 0, or 1 and 0 alone")
    targets = raw.astype(np.int8)
    return targets if (targets < 0).any() else np.where(targets > 0, 1, -1).astype(np.int8)


def _names(raw: npt.NDArray[Any] | None, tags: int, where: str) -> tuple[str, ...]:
    if raw is None:
        return tuple(f"tag {index}" for index in range(tags))
    names = tuple(str(name) for name in raw.ravel())
    if len(names) != tags or len(set(names)) != tags:
        raise InputError(
            f"{where}: {len(names)} names for {tags} tags; expected one each, distinct"
        )
    return names

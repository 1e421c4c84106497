"""Tags that are confusable: alike in the bank, on together, never on, unknown to the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bank.class_bank import ClassBank, Threshold

__all__ = ["Confusion", "Pair", "find_confusable"]

Floats = npt.NDArray[np.float64]

# Cosine about the bank's mean from which two rows are near-duplicates; the share of frames with
# either tag on that have both, and their least number, from which two tags are on together.
_NEAR = 0.6
_TOGETHER, _LEAST_TOGETHER = 0.3, 3
_NO_TEXT = ("from texts, all tags", "from other tags")


@dataclass(frozen=True)
class Pair:
    """Two tags and how alike they are.

    Attributes:
        first, second: their names.
        alike: cosine of their bank rows about the bank's mean row, −1 … 1.
        together: of the frames where either is on, the share where both are; NaN without frames.
        frames: how many frames have both on.
    """

    first: str
    second: str
    alike: float
    together: float = float("nan")
    frames: int = 0


@dataclass(frozen=True, eq=False)
class Confusion:
    """What was found.

    Attributes:
        names: C tags.
        alike: cosines of the bank about its mean, [C, C].
        together: shares of common frames, [C, C]; None without frames.
        frames: how many were looked at.
        near_duplicates, fire_together: pairs, the worst first.
        never_on: tags that no frame turns on; empty without frames.
        no_text: tags that no text named, as far as is known.
    """

    names: tuple[str, ...]
    alike: Floats
    together: Floats | None
    frames: int
    near_duplicates: tuple[Pair, ...]
    fire_together: tuple[Pair, ...]
    never_on: tuple[str, ...]
    no_text: tuple[str, ...]


def find_confusable(
    bank: ClassBank,
    thresholds: Sequence[Threshold],
    scores: Floats | None = None,
    named: npt.NDArray[np.int64] | None = None,
) -> Confusion:
    """Look for confusable tags.

    Args:
        bank: C tags. thresholds: of the same tags.
        scores: merged scores of frames, [N, C].
        named: how many texts name each tag, [C]; None goes by where thresholds come from.
    """
    names, alike = bank.names, _alike(bank)
    near = sorted(
        (Pair(names[i], names[j], float(alike[i, j])) for i, j in _upper(alike >= _NEAR)),
        key=lambda pair: -pair.alike,
    )
    silent = [one.source in _NO_TEXT for one in thresholds] if named is None else named == 0
    no_text = tuple(name for name, none in zip(names, silent, strict=True) if none)
    if scores is None:
        return Confusion(names, alike, None, 0, tuple(near), (), (), no_text)
    on = scores >= np.array([one.on for one in thresholds])
    both = on.T.astype(np.float64) @ on
    alone = np.diag(both)
    either = alone[:, None] + alone - both
    together = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    often = _upper((together >= _TOGETHER) & (both >= _LEAST_TOGETHER))
    fire = sorted(
        (
            Pair(names[i], names[j], float(alike[i, j]), float(together[i, j]), int(both[i, j]))
            for i, j in often
        ),
        key=lambda pair: -pair.together,
    )
    never = tuple(name for name, count in zip(names, alone, strict=True) if count == 0)
    return Confusion(names, alike, together, len(scores), tuple(near), tuple(fire), never, no_text)


def _alike(bank: ClassBank) -> Floats:
    """Cosines about the mean: text towers give all texts a direction in common."""
    found = np.zeros((len(bank.names), len(bank.names)))
    for rows in (bank.global_embeddings, bank.local_embeddings):
        centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        unit = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 1e-6)
        found += unit @ unit.T / 2
    np.fill_diagonal(found, 1.0)
    return found


def _upper(chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Row and column of each chosen pair, every pair once, [K, 2]."""
    return np.argwhere(np.triu(chosen, 1))

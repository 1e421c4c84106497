"""Tags that are confusable: alike in the bank, on together, never on, unknown to the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bank.class_bank import ClassBank, Threshold

__all__ = ["Confusion", "Pair", "find_confusable"]

Floats = npt.NDArray[np.float64]

_NEAR = 0.6  # cosine about the bank's mean from which two rows are all but one tag
_TOGETHER = 0.3  # share of frames with either tag on that have both
_LEAST_TOGETHER = 3  # frames
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
    alike = _alike(bank)
    pairs = _pairs(bank.names, alike)
    near = tuple(pair for pair in pairs if pair.alike >= _NEAR)
    if named is None:
        silent = [one.source in _NO_TEXT for one in thresholds]
    else:
        silent = (named == 0).tolist()
    no_text = tuple(name for name, none in zip(bank.names, silent, strict=True) if none)
    if scores is None:
        return Confusion(bank.names, alike, None, 0, near, (), (), no_text)
    on = scores >= np.array([one.on for one in thresholds])
    both = on.T.astype(np.float64) @ on
    alone = np.diag(both)
    either = alone[:, None] + alone - both
    together = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    fire = _together(bank.names, alike, together, both)
    never = tuple(name for name, count in zip(bank.names, alone, strict=True) if count == 0)
    return Confusion(bank.names, alike, together, len(scores), near, fire, never, no_text)


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


def _pairs(names: tuple[str, ...], alike: Floats) -> list[Pair]:
    rows, columns = np.triu_indices(len(names), 1)
    order = np.argsort(-alike[rows, columns], kind="stable")[: 10 * len(names)]
    return [
        Pair(names[rows[at]], names[columns[at]], float(alike[rows[at], columns[at]]))
        for at in order
    ]


def _together(
    names: tuple[str, ...], alike: Floats, together: Floats, both: Floats
) -> tuple[Pair, ...]:
    often = np.triu((together >= _TOGETHER) & (both >= _LEAST_TOGETHER), 1)
    found = [
        Pair(names[i], names[j], float(alike[i, j]), float(together[i, j]), int(both[i, j]))
        for i, j in np.argwhere(often)
    ]
    return tuple(sorted(found, key=lambda pair: -pair.together))

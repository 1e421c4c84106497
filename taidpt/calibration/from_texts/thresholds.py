"""Thresholds and probabilities a tag from texts alone, until pictures calibrate them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.calibration.from_texts.modality_gap import Background, expected_densities
from taidpt.calibration.statistics.sample import Sample
from taidpt.calibration.statistics.switch import choose_switches
from taidpt.runtime.bank.class_bank import Threshold
from taidpt.score_file import checked_scores

__all__ = ["TextTag", "split_held_out", "tags_from_texts"]

FROM_TEXTS, FROM_ALL_TAGS = "from texts", "from texts, all tags"

_LEAST_A_TAG = 3
_PLACES = np.linspace(-6, 14, 801)  # spreads above the background, from surely not to surely
_RATE_WEIGHT = 0.5  # captions name tags more, and less, often than pictures have them
_ENOUGH = 10  # captions that name a tag, and that do not, before it may be fairly sure
_PARTED = 0.75  # share of pairs of captions, with and without a tag, that score in this order

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TextTag:
    """What texts tell of one tag.

    Attributes:
        threshold: on scores of pictures; its source says whether any text names the tag.
        probability: the map from score to probability as a bundle's manifest holds it.
        named: how many texts name it.
        sureness: "medium" or "low"; never "high", as no picture was seen.
    """

    threshold: Threshold
    probability: dict[str, Any]
    named: int
    sureness: str


def split_held_out(
    labels: Sequence[Sequence[int]], tags: int, fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split texts into those to train on and those held out, by their numbers in ascending order.

    A random fraction is held out; a tag that gets fewer than three is topped up, as long as most
    of its texts stay in training.

    Args:
        labels: tag numbers of each text.
    Returns:
        training rows and held-out rows.
    """
    count = len(labels)
    order = np.random.default_rng([seed, 1]).permutation(count)
    held = np.zeros(count, bool)
    held[order[: round(count * fraction)]] = True
    if fraction > 0:
        owners: list[list[int]] = [[] for _ in range(tags)]
        for row in order.tolist():
            for tag in labels[row]:
                owners[tag].append(row)
        for rows in owners:
            missing = min(_LEAST_A_TAG, len(rows) // 4) - int(held[rows].sum())
            spare = [row for row in rows if not held[row]]
            held[spare[: max(missing, 0)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def tags_from_texts(
    scores: npt.NDArray[Any], positive: Bools, made_up: npt.NDArray[Any]
) -> tuple[TextTag, ...]:
    """Thresholds with the best expected F1, and the probabilities that they are expected from.

    Texts tell how often each tag is to be expected, and how sure of it to be. A text names only
    what its writer found worth saying, so its rate is a guess at that of pictures, and counts half
    (of its log odds) beside that of all tags; a tag that no text names takes the latter. How much
    higher a tag's own texts score does not carry over to pictures, and is not used for more than
    sureness. Where pictures score comes from made-up ones.

    Args:
        scores: merged scores of texts, [N, C].
        positive: whether the text names the tag, [N, C], at least one True.
        made_up: merged scores of made-up pictures, [M, C].
    Raises:
        InputError: scores that are not finite.
    """
    texts = checked_scores(scores, "the texts' scores")
    background = Background.of(checked_scores(made_up, "the made-up pictures' scores"))
    without, with_tag = expected_densities(_PLACES)
    rates = _rates(positive)[:, None]
    counts = rates * with_tag + (1 - rates) * without
    places = np.broadcast_to(background.centre + background.spread * _PLACES, counts.shape)
    found = choose_switches(Sample(places, counts), rates * with_tag / counts)
    return tuple(
        TextTag(
            Threshold(one.on, one.off, FROM_TEXTS if named.any() else FROM_ALL_TAGS),
            {
                "scores": one.curve[0].tolist(),
                "probabilities": one.curve[1].tolist(),
                "band": list(one.band),
                "state": FROM_TEXTS,
                "expected_share": float(rate),
                "sureness": sureness,
            },
            int(named.sum()),
            sureness,
        )
        for one, named, rate, sureness in zip(
            found, positive.T, rates[:, 0], _sureness(texts, positive), strict=True
        )
    )


def _rates(positive: Bools) -> Floats:
    """How often each tag is to be expected in pictures, [C], within 0 and 1."""
    texts, named = len(positive), positive.sum(axis=0)
    usual = (named.sum() + 0.5) / (texts * len(named) + 1)
    own = (named + 1) / (texts + 1 / usual)  # one more text that names it, at the usual rate
    usual_odds, own_odds = (np.log(rate) - np.log1p(-rate) for rate in (usual, own))
    odds = usual_odds + _RATE_WEIGHT * np.where(named > 0, own_odds - usual_odds, 0.0)
    return np.asarray(1 / (1 + np.exp(-odds)))


def _sureness(scores: Floats, positive: Bools) -> list[str]:
    return [
        "medium" if _are_parted(*column) else "low"
        for column in zip(scores.T, positive.T, strict=True)
    ]


def _are_parted(scores: Floats, named: Bools) -> bool:
    """Whether enough texts name a tag, and score above those that do not."""
    others = np.sort(scores[~named])
    if min(named.sum(), len(others)) < _ENOUGH:
        return False
    lower, upper = (np.searchsorted(others, scores[named], side) for side in ("left", "right"))
    return bool((lower + upper).mean() / 2 / len(others) >= _PARTED)

"""Thresholds and probabilities a tag from texts alone, until pictures calibrate them.

A CLIP's pictures lie apart from its texts: a picture of a dog scores lower on "dog" than a caption
that names it, by a margin that differs from model to model. Made-up pictures show that margin: what
they score is what a picture scores on tags that it does not have. Captions do not show how far
above that a tag's own pictures lie: prompts that were tuned on captions separate captions almost
wholly, templates hardly, and both separate pictures alike. It is taken to be what calibration on
frames starts from. `taidpt calibrate` on one's own pictures does better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics.sample import TYPICAL_LIFT, Sample
from taidpt.calibration.statistics.switch import choose_switches
from taidpt.runtime.bank.class_bank import Threshold
from taidpt.score_file import checked_scores

__all__ = ["Background", "TextTag", "expected_densities", "tags_from_texts"]

FROM_TEXTS, FROM_ALL_TAGS = "from texts", "from texts, all tags"

_PLACES = np.linspace(-6, 14, 801)  # spreads above the background, from surely not to surely
_RATE_WEIGHT = 0.5  # captions name tags more, and less, often than pictures have them
_ENOUGH = 10  # captions that name a tag, and that do not, before it may be fairly sure
_PARTED = 0.75  # share of pairs of captions, with and without a tag, that score in this order

# How uncertain the lift is, in its logarithm (tags differ by 0.2, their mean by 0.3); by how
# many spreads pictures of nothing may lie beside pictures of other things; the bells' degrees of
# freedom; and how many lifts and places the mean is taken over.
_LIFT_DOUBT = 0.36
_PLACE_DOUBT = 0.3
_TAIL = 15.0
_NODES = 15
_LEAST_SPREAD = 1e-6

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


@dataclass(frozen=True)
class Background:
    """Where pictures score on tags that they do not have.

    All tags have one place and one spread: made-up pictures are all alike, so on a single tag they
    lie further from where other pictures would than tags lie from each other.
    """

    centre: float
    spread: float

    @classmethod
    def of(cls, scores: Floats) -> Background:
        """From scores of made-up pictures, [N, C]; the spread is that within a tag."""
        within = float(np.sqrt(scores.var(axis=0).mean()))
        return cls(float(scores.mean()), max(within, _LEAST_SPREAD))


def expected_densities(places: Floats) -> tuple[Floats, Floats]:
    """How often pictures without and with a tag are to be expected at a score.

    Both are bells of one spread; how far apart, and where, is not known exactly, so they are means
    over what is likely.

    Args:
        places: scores in spreads above the background's centre, [B].
    Returns:
        densities, [B] each, both times one constant.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()
    moved = places - _PLACE_DOUBT * nodes[:, None]
    lifts = TYPICAL_LIFT * np.exp(_LIFT_DOUBT * nodes)
    with_tag = _bell(moved[:, None] - lifts[:, None])  # [moves, lifts, B]
    return weights @ _bell(moved), weights @ (weights @ with_tag)


def _bell(z: Floats) -> Floats:
    return np.asarray((1 + z * z / _TAIL) ** (-(_TAIL + 1) / 2))

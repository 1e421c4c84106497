"""Choose, without labels, how a picture's scores compete over its tags.

`log_softmax(T · (score − b))`: b is the mean score of each tag over unlabelled frames, T is in
units of the scores' own spread about b. A graph with the transform log_softmax needs no change for
it: T and b go into the scale and the bias of its bank, as log_softmax ignores what all tags share.

The criterion is how much of the tags' presence the scores explain after each transform, by the
probabilities of calibration. Plain scores are kept unless another transform explains clearly more.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics.estimator import calibrate
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.score_transforms import are_log_probabilities, transform_scores

__all__ = ["ScoreTransform", "choose_transform", "with_transform"]

Floats = npt.NDArray[np.float64]

# T times the scores' spread. A quarter is nearly centring; above one half, tags that are there
# together push each other down, and fits of weak scores break at 0.8. On photographs' scores the
# best of a global head lies between 0.5 and 1.2.
_TEMPERATURES = (0.25, 0.5)

# A transform is taken if its scores explain this much more of the presence than plain ones do, and
# from so many frames on. Of 60 matrices a smaller gain was a loss in precision more often than not,
# and so was every other one from 159 frames (docs/thresholds-measured.md).
_LEAST_GAIN = 0.04
_FEWEST_FRAMES = 300

# A log-probability of 0 would have infinite log odds.
_LEAST_LOG = -1e-12


@dataclass(frozen=True, eq=False)
class ScoreTransform:
    """A transform of scores over a picture's tags.

    Attributes:
        kind: "none", "center" or "log_softmax".
        temperature: T, a factor on the scores.
        bias: b, what is subtracted from them first, [C].
    """

    kind: str
    temperature: float
    bias: Floats

    def __call__(self, scores: Floats) -> Floats:
        """Transformed scores, [N, C]."""
        return transform_scores(self.temperature * (scores - self.bias), self.kind)

    def __str__(self) -> str:
        if not self.bias.any() and self.temperature == 1.0:
            return self.kind
        return f"log_softmax({self.temperature:.3g} · (score − mean score of the tag))"


def choose_transform(
    scores: Floats, kinds: tuple[str, ...] = ("none", "center")
) -> tuple[ScoreTransform, dict[str, float]]:
    """The transform whose scores explain most of the tags' presence, or the first of `kinds`.

    Args:
        scores: of unlabelled frames, [N, C].
        kinds: plain transforms to try beside log_softmax with T and b; the first is kept where none
            explains clearly more, or frames are fewer than 300.
    Returns:
        the transform, and the explained share of presence of each candidate by its name.
    """
    mean = scores.mean(axis=0)
    spread = max(float((scores - mean).std()), 1e-12)
    candidates = [ScoreTransform(kind, 1.0, np.zeros_like(mean)) for kind in kinds]
    candidates += [ScoreTransform("log_softmax", t / spread, mean) for t in _TEMPERATURES]
    explained = [_explained(candidate(scores)) for candidate in candidates]
    best = int(np.argmax(explained))
    if len(scores) < _FEWEST_FRAMES or explained[best] < explained[0] + _LEAST_GAIN:
        best = 0
    return candidates[best], dict(zip(map(str, candidates), explained, strict=True))


def with_transform(bank: ClassBank, transform: ScoreTransform) -> ClassBank:
    """The bank whose scores are `T · (score − b)` of the given bank's, before log_softmax."""
    scale = bank.scale * transform.temperature
    bias = transform.temperature * (bank.bias - transform.bias)
    return dataclasses.replace(
        bank, scale=scale.astype(bank.scale.dtype), bias=bias.astype(bank.bias.dtype)
    )


def _explained(scores: Floats) -> float:
    """Mean share of a tag's presence that its score explains; 0 for a tag without a chance.

    Log-probabilities count as log odds: calibration itself would fit them centred, which hides what
    a transform does.
    """
    if are_log_probabilities(scores):
        scores = scores - np.log(-np.expm1(np.minimum(scores, _LEAST_LOG)))
    chances = calibrate(scores).probabilities(scores)
    share = chances.mean(axis=0)
    doubt = (chances * (1 - chances)).mean(axis=0)
    explained = 1 - doubt / np.maximum(share * (1 - share), 1e-12)
    return float(np.where(share > 0, explained, 0.0).mean())

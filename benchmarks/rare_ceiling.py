"""How good thresholds on rare tags can get at all, against a single one chosen with labels.

    python benchmarks/rare_ceiling.py [--seeds 1500-1547]

The family "rare" has 2 to 20 positives a tag, and the single threshold is chosen on the very frames
that it is judged on. Beside it and ours stand what nobody has:

    crossed   the best single threshold of the other half of the frames, chosen with their labels
    knowing   no labels, but told exactly what the simulator draws from: background, spreads, and
              how prevalence and separation are distributed; Bayes' rule does the rest
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logsumexp
from scipy.stats import norm

from taidpt.calibration.statistics.estimator import calibrate
from taidpt.calibration.statistics.sample import Sample
from taidpt.calibration.statistics.switch import choose_switches
from taidpt.judging.baselines import best_single_threshold
from taidpt.judging.measures import f1_scores
from tests.taidpt.calibration.simulator import Size, simulate

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]

WAYS = ("ours", "single", "crossed", "knowing")

# What "rare" is drawn from (taidpt/calibration/simulator.py), in spreads of the background.
BASE, NOISE = 0.8, 0.1
SEPARATIONS = 4.5 + 0.4 * np.linspace(-2.5, 2.5, 21)
SHARES = np.exp(np.linspace(np.log(0.001), np.log(0.01), 21))


def main() -> None:
    """Draw every seed, print each way's mean macro-F1 and how often it reaches the single one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1500-1547", help="first and last")
    first, last = map(int, parser.parse_args().seeds.split("-"))
    found = np.array([measure(seed) for seed in range(first, last + 1)])
    print(f"rare, 2,000 frames x 40 tags, {len(found)} matrices, macro-F1")
    for index, way in enumerate(WAYS):
        values = found[:, index]
        error = values.std(ddof=1) / np.sqrt(len(values))
        reached = int((values >= found[:, WAYS.index("single")]).sum())
        print(f"{way:8}{100 * values.mean():6.1f} ± {100 * error:.1f}   at least single: {reached}")


def measure(seed: int) -> list[float]:
    """Macro-F1 of every way on one matrix."""
    matrix = simulate("rare", seed, Size())
    scores, targets = matrix.merged(), matrix.targets
    assert targets is not None
    single = best_single_threshold(scores, targets)
    crossed = np.concatenate(
        [
            np.full(len(half), best_single_threshold(scores[other], targets[other])[0])
            for half, other in _halves(len(scores))
        ]
    )
    ways = (
        f1_scores(scores, targets, calibrate(scores).on),
        f1_scores(scores, targets, single),
        f1_scores(scores - crossed[:, None], targets, np.zeros(scores.shape[1])),
        f1_scores(scores, targets, knowing(scores)),
    )
    return [float(np.nanmean(way)) for way in ways]


def _halves(frames: int) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    first, second = np.array_split(np.arange(frames), 2)
    return [(first, second), (second, first)]


def knowing(scores: Floats) -> Floats:
    """Thresholds [C] by Bayes' rule: each tag's separation and share are unknown, all else known.

    Args:
        scores: [N, C].
    """
    ordered = np.sort((scores - BASE) / NOISE, axis=0).T
    probabilities = np.stack([_posterior(row) for row in ordered])
    on = [one.on for one in choose_switches(Sample(ordered, np.ones_like(ordered)), probabilities)]
    return BASE + NOISE * np.array(on)


def _posterior(values: Floats) -> Floats:
    """Probability of the tag at each value of one tag, [N]."""
    with_tag = norm.logpdf(values, SEPARATIONS[:, None, None], np.sqrt(2.0))
    odds = with_tag - norm.logpdf(values) + np.log(SHARES / (1 - SHARES))[:, None]
    evidence = (np.logaddexp(0, odds) + np.log1p(-SHARES)[:, None]).sum(axis=-1)
    weight = evidence + norm.logpdf(SEPARATIONS, 4.5, 0.4)[:, None]
    weight = np.exp(weight - logsumexp(weight))
    return np.asarray(np.einsum("ab,abn->n", weight, expit(odds)), np.float64)


if __name__ == "__main__":
    main()

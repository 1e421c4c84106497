"""What a handful of labels does to thresholds, on simulated score matrices.

    python benchmarks/few_labels.py [--families "weak;common"] [--seeds 600,601]

Labels come as people give them: for each tag some frames that have it, or that have it and as many
that do not, as somebody finds who looks for the tag; or whole frames, drawn at random, with all of
their tags. Macro-F1 is over all frames; the labelled ones are among them.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics.estimator import calibrate
from taidpt.calibration.statistics.few_labels import refine
from taidpt.judging.baselines import best_single_threshold, oracle_thresholds
from taidpt.judging.measures import f1_scores
from tests.taidpt.calibration.simulator import Size, simulate

Targets = npt.NDArray[np.int8]
FAMILIES = "shifted;skewed;common;weak;embedded;rare;photos;photos, uneven"
CHOSEN = ((1, 0), (3, 3), (10, 10))  # of each tag, frames with and without it
WHOLE = (20, 100)


def main() -> None:
    """Parse, run every family, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default=FAMILIES)
    parser.add_argument("--seeds", default="600,601")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--tags", type=int, default=20)
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    ways = [*(f"{p} with, {n} without" for p, n in CHOSEN), *(f"{n} whole" for n in WHOLE)]
    columns = ["no label", *ways, "one", "each"]
    print(f"{options.frames} frames, {options.tags} tags, mean of seeds {options.seeds}")
    print(f"{'family':16}" + "".join(f"{name:>21}" for name in columns))
    for family in options.families.split(";"):
        rows = [measure(family, seed, Size(options.frames, options.tags)) for seed in seeds]
        print(f"{family:16}" + "".join(f"{value:21.1f}" for value in np.mean(rows, axis=0)))


def measure(family: str, seed: int, size: Size) -> list[float]:
    """Macro-F1 in percent without labels, with each handful, and of the two labelled rivals."""
    matrix = simulate(family, seed, size)
    scores, targets = matrix.merged(), matrix.targets
    assert targets is not None
    random = np.random.default_rng(seed)
    before = calibrate(scores)
    handfuls = [chosen(targets, *counts, random) for counts in CHOSEN]
    handfuls += [whole(targets, count, random) for count in WHOLE]
    found = [before.on, *(refine(before, scores, labels).on for labels in handfuls)]
    found += [best_single_threshold(scores, targets), oracle_thresholds(scores, targets)]
    return [100 * float(np.nanmean(f1_scores(scores, targets, on))) for on in found]


def chosen(targets: Targets, having: int, lacking: int, random: np.random.Generator) -> Targets:
    """Labels of each tag in so many frames that have it, and that have it not."""
    labels = np.zeros_like(targets)
    for tag, column in enumerate(targets.T):
        for sign, count in ((1, having), (-1, lacking)):
            frames = random.permutation(np.flatnonzero(column == sign))[:count]
            labels[frames, tag] = sign
    return labels


def whole(targets: Targets, count: int, random: np.random.Generator) -> Targets:
    """Labels of all tags in so many frames."""
    labels = np.zeros_like(targets)
    frames = random.permutation(len(targets))[:count]
    labels[frames] = targets[frames]
    return labels


if __name__ == "__main__":
    main()

"""How good thresholds and probabilities are that a bundle has, on labelled scores.

taidpt demo -o demo
taidpt research eval --dataset toyworld --methods taidpt --prompts demo/toyworld.safetensors \\
  --save-scores scores
python benchmarks/texts_alone.py demo/toyworld.taidpt scores/taidpt.npz
"""

from __future__ import annotations

import argparse

import numpy as np

from taidpt.judging.baselines import best_single_threshold, oracle_thresholds
from taidpt.judging.measures import expected_calibration_error, f1_scores
from taidpt.runtime.bank.probability_maps import ProbabilityMaps
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from taidpt.score_file import Floats, ScoreFile


def main() -> None:
    """Parse, measure, print one Markdown row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", help="a bundle with thresholds from texts")
    parser.add_argument(
        "scores", help=".npz with targets, of pictures that its tags were scored on"
    )
    options = parser.parse_args()
    manifest, matrix = Bundle.load(options.bundle).manifest, ScoreFile.load(options.scores)
    if matrix.names != manifest.names or matrix.targets is None:
        raise InputError(f"{options.scores}: expected targets of the tags of {options.bundle}")
    scores = matrix.merged(manifest.scoring.merge_weight, manifest.scoring.transform)
    targets, on = matrix.targets, np.array([tag.threshold.on for tag in manifest.tags])
    single, each = best_single_threshold(scores, targets), oracle_thresholds(scores, targets)
    figures = [
        100 * float(np.nanmean(f1_scores(scores, targets, cuts))) for cuts in (on, single, each)
    ]
    maps = ProbabilityMaps.of([tag.probability for tag in manifest.tags])
    error = expected_calibration_error(probabilities(scores, maps), targets)
    print(" | ".join([*(f"{figure:.1f}" for figure in figures), f"{error:.4f}"]))


def probabilities(scores: Floats, maps: ProbabilityMaps) -> Floats:
    """Of every score, [N, C], as the runtime reads them from the maps."""
    if maps.present < len(maps):
        raise InputError("a tag has no probability map: run taidpt calibrate --texts first")
    return np.array(
        [[maps.probability(tag, score) for tag, score in enumerate(row)] for row in scores],
        np.float64,
    )


if __name__ == "__main__":
    main()

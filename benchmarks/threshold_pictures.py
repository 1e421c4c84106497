"""The picture of docs/thresholds.md: three tags of the toy world.

taidpt research eval --dataset toyworld --methods clipdpt80 --save-scores scores
python benchmarks/threshold_pictures.py scores/clipdpt80.npz -o docs/images
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taidpt.calibration.statistics.estimator import TagCalibration, calibrate
from taidpt.score_file import ScoreFile

SHOWN = ("elephant", "cup", "backpack")


def main() -> None:
    """Parse, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    tags(ScoreFile.load(options.scores), options.output / "thresholds-tags.png")


def tags(matrix: ScoreFile, path: Path) -> None:
    """Three tags of the toy world: every picture a dot, and where the tag switches."""
    scores = matrix.merged()
    found = calibrate(scores, matrix.names)
    assert matrix.targets is not None
    figure = Figure(figsize=(9, 3.2), layout="constrained", dpi=100)
    for axes, name in zip(figure.subplots(1, 3), SHOWN, strict=True):
        index = matrix.names.index(name)
        one_tag(axes, found.tags[index], scores[:, index], matrix.targets[:, index] > 0)
    figure.legend(*axes.get_legend_handles_labels(), ncols=4, loc="outside upper center")
    figure.savefig(path)


def one_tag(axes: Axes, tag: TagCalibration, scores: Any, has: Any) -> None:
    """Dots of pictures with and without the tag over the zones off, unsure, on."""
    random = np.random.default_rng(0)
    low, high = float(scores.min()), float(scores.max())
    margin = 0.04 * (high - low)
    axes.axvspan(tag.on, high + margin, color="tab:green", alpha=0.12, label="on")
    axes.axvline(tag.on, color="tab:green", label="turns on here")
    axes.axvline(tag.off, color="tab:green", linestyle=":", label="turns off here")
    axes.axvspan(*tag.band, color="gold", alpha=0.3, label="uncertain")
    for row, chosen, colour in ((0, ~has, "0.4"), (1, has, "tab:blue")):
        height = row + random.uniform(-0.3, 0.3, int(chosen.sum()))
        axes.plot(scores[chosen], height, ".", color=colour, markersize=4, alpha=0.6)
    axes.set_yticks((0, 1), ("not there", "there"))
    axes.set(title=f"{tag.name} (sure: {tag.sureness})", xlabel="score", ylim=(-0.5, 1.5))
    axes.set_xlim(low - margin, high + margin)


if __name__ == "__main__":
    main()

"""The two pictures of docs/thresholds.md.

python benchmarks/thresholds.py --seeds 900,901 --json table.json
taidpt eval --dataset toyworld --methods clipdpt80 --save-scores scores
python benchmarks/threshold_pictures.py table.json scores/clipdpt80.npz -o docs/images
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from taidpt.calibration.estimator import calibrate
from taidpt.calibration.score_matrix import ScoreMatrix

SHOWN = ("backpack", "cup", "elephant")


def main() -> None:
    """Parse, draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("scores", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    bars(json.loads(options.table.read_text()), options.output / "thresholds-families.png")
    tags(ScoreMatrix.load(options.scores), options.output / "thresholds-tags.png")


def bars(rows: list[dict[str, Any]], path: Path) -> None:
    """Macro-F1 of every family: ours, and what labels would give."""
    rows = [row for row in rows if row["transform"] == "none"]
    figure = Figure(figsize=(8, 4.2), layout="constrained", dpi=80)
    axes = figure.subplots()
    place = np.arange(len(rows))
    axes.bar(
        place, [100 * row["ours"] for row in rows], color="lightsteelblue", label="ours, no labels"
    )
    for name, mark, text in (
        ("single", "o", "one threshold, with labels"),
        ("oracle", "_", "one a tag, with labels"),
        ("otsu", "x", "Otsu, no labels"),
    ):
        values = [100 * row[name] for row in rows]
        axes.plot(place, values, mark, color="black", markersize=7, label=text)
    axes.set_xticks(place, [row["family"] for row in rows], rotation=60, ha="right")
    axes.set(ylabel="macro-F1, %", ylim=(0, 112))
    axes.legend(fontsize=7, ncols=4, loc="upper center")
    figure.savefig(path)


def tags(matrix: ScoreMatrix, path: Path) -> None:
    """Three tags of the toy world: their scores, where they switch, and who had the tag."""
    scores = matrix.merged()
    found = calibrate(scores, matrix.names)
    assert matrix.targets is not None
    figure = Figure(figsize=(9, 2.8), layout="constrained", dpi=80)
    for axes, name in zip(figure.subplots(1, 3), SHOWN, strict=True):
        index = matrix.names.index(name)
        tag, values = found.tags[index], scores[:, index]
        has = matrix.targets[:, index] > 0
        edges = np.linspace(values.min(), values.max(), 30).tolist()
        axes.hist(values[~has], edges, color="0.75")
        axes.hist(values[has], edges, color="tab:orange", alpha=0.7)
        axes.axvspan(*tag.band, color="tab:blue", alpha=0.15)
        axes.axvline(tag.on, color="tab:blue")
        axes.axvline(tag.off, color="tab:blue", linestyle=":")
        axes.set(title=f"{name}: sure {tag.sureness}", yscale="symlog", xlabel="score")
    figure.savefig(path)


if __name__ == "__main__":
    main()

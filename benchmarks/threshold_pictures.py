"""The two pictures of docs/thresholds.md.

python benchmarks/thresholds.py --seeds 1700,1701,1702,1703 --json table.json
taidpt eval --dataset toyworld --methods clipdpt80 --save-scores scores
python benchmarks/threshold_pictures.py table.json scores/clipdpt80.npz -o docs/images
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taidpt.calibration.statistics.estimator import TagCalibration, calibrate
from taidpt.score_file import ScoreFile

SHOWN = ("elephant", "cup", "backpack")
PLAIN_WORDS = {
    "plain": "all tags alike",
    "shifted": "every tag at a level of its own",
    "skewed": "frames without the tag lean upwards",
    "heteroscedastic": "some tags spread wide, some narrow",
    "heavy-tailed": "odd frames far from the rest",
    "rare": "tags in 1 to 10 of 1,000 frames",
    "common": "a third of the tags in most frames",
    "correlated": "tags that come together",
    "offsets": "some frames lift all tags",
    "absent": "four of ten tags never there",
    "weak": "a model that hardly tells",
    "embedded": "many things in one frame",
    "crowded": "tags that look alike",
    "graded": "big and small things",
    "confused": "tags that lift a neighbour",
    "mixed": "all of these at once",
    "photos": "as on photographs",
    "photos, uneven": "photographs, good and bad tags",
    "photos, level": "photographs, tags at one level",
    "photos, scenes": "photographs, tags by scenes",
}


def main() -> None:
    """Parse, draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("scores", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    families(json.loads(options.table.read_text()), options.output / "thresholds-families.png")
    tags(ScoreFile.load(options.scores), options.output / "thresholds-tags.png")


def families(rows: list[dict[str, Any]], path: Path) -> None:
    """Macro-F1 of every family: ours, and what labels would give."""
    rows = [row for row in rows if row["transform"] == "none"]
    rows.sort(key=lambda row: float(row["ours"]))
    figure = Figure(figsize=(8.5, 5.6), layout="constrained", dpi=100)
    axes = figure.subplots()
    place = np.arange(len(rows))
    values = {
        name: np.array([100 * row[name] for row in rows])
        for name in ("ours", "single", "oracle", "otsu")
    }
    axes.hlines(place, values["otsu"], values["oracle"], color="0.85", linewidth=5)
    axes.plot(values["otsu"], place, "x", color="0.5", label="Otsu, no labels")
    axes.plot(
        values["single"],
        place,
        "s",
        color="tab:orange",
        label="one slider for all tags, set with labels",
    )
    axes.plot(values["ours"], place, "o", color="tab:blue", label="ours, no labels")
    axes.plot(
        values["oracle"], place, "|", color="black", markersize=11, label="one per tag, with labels"
    )
    axes.set_yticks(place, [PLAIN_WORDS[row["family"]] for row in rows])
    axes.set(xlabel="right decisions: F1 in percent, mean over tags", xlim=(0, 100))
    figure.legend(ncols=4, loc="outside upper center", frameon=False, fontsize=9)
    figure.savefig(path)


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

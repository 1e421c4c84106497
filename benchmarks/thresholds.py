"""Thresholds without labels against thresholds with them, on simulated score matrices.

    python benchmarks/thresholds.py [--families "plain;rare"] [--seeds 100,101] [--json FILE]

The method was developed on these families, with other seeds. Each rival is measured on the very
scores it was chosen on, so "single" and "oracle" are upper bounds of their kind. Scores are merged
with weight 0.5; "center" subtracts each picture's mean over tags.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np

from taidpt.calibration.judging.report import Comparison, compare
from taidpt.calibration.statistics.estimator import calibrate
from tests.taidpt.calibration.simulator import FAMILIES, Size, simulate

FIELDS = [field.name for field in dataclasses.fields(Comparison)]


def main() -> None:
    """Parse, run every family, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default=";".join(FAMILIES))
    parser.add_argument("--seeds", default="100,101")
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--tags", type=int, default=40)
    parser.add_argument("--absent", type=float, default=0.0, help="share of tags that never occur")
    parser.add_argument("--transforms", default="none,center")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size = Size(options.frames, options.tags, options.absent)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    print(f"{size.frames} frames, {size.tags} tags, mean of seeds {options.seeds}")
    print(f"{'family':18}{'scores':8}" + "".join(f"{name[:9]:>10}" for name in FIELDS) + "   s")
    rows = []
    for family in options.families.split(";"):
        for transform in options.transforms.split(","):
            rows.append(measure(family, transform, seeds, size))
            print_row(rows[-1])
    met = sum(row["ours"] >= row["single"] for row in rows)
    print(f"\nours at least the best single labelled threshold: {met} of {len(rows)} rows")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(family: str, transform: str, seeds: list[int], size: Size) -> dict[str, float | str]:
    """Means over seeds of one family and transform."""
    found, started = [], time.perf_counter()
    for seed in seeds:
        matrix = simulate(family, seed, size)
        scores = matrix.merged(transform=transform)
        assert matrix.targets is not None
        found.append(dataclasses.asdict(compare(scores, matrix.targets, calibrate(scores))))
    row: dict[str, float | str] = {
        name: float(np.mean([one[name] for one in found])) for name in FIELDS
    }
    seconds = (time.perf_counter() - started) / len(seeds)
    return {"family": family, "transform": transform, **row, "seconds": seconds}


def print_row(row: dict[str, float | str]) -> None:
    """One line of the table; ! marks a row where the goal is missed."""
    numbers = "".join(f"{row[name]:10.3f}" for name in FIELDS)
    missed = " !" if row["ours"] < row["single"] else ""
    print(
        f"{row['family']:18}{row['transform']:8}{numbers}{row['seconds']:6.1f}{missed}", flush=True
    )


if __name__ == "__main__":
    main()

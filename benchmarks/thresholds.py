"""Thresholds without labels against thresholds with them.

    python benchmarks/thresholds.py --real FILE.npz [--sizes 300,1000,all] [--draws 10]
    python benchmarks/thresholds.py [--families "plain;rare"] [--seeds 100,101] [--json FILE]
    python benchmarks/thresholds.py --ablation --real FILE.npz FILE.npz [--sizes 300] [--seeds 1801]
    python benchmarks/thresholds.py --auto [--real FILE.npz …] [--families "embedded;offsets"]

The first judges scores of real pictures (global, local, targets): both heads and their mean, each
with every transform, calibrated on draws of frames and on all of them. The second judges simulated
matrices. The third switches off or changes one rule or constant of calibration after the other, and
judges each on both. Rivals are chosen with labels of the very frames that they are judged on, so
"slider" (one threshold for all tags) and "each" (one a tag) are upper bounds of their kind. The
slider "carried" is chosen with the labels of as many other frames (of halves, where all are drawn).
The fourth prints the precision after `--score-transform auto` and after fixed transforms.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics import estimator, hierarchy, sample, switch
from taidpt.calibration.statistics.estimator import calibrate
from taidpt.judging.baselines import best_single_threshold, oracle_thresholds
from taidpt.judging.measures import (
    expected_calibration_error,
    f1_scores,
    false_on_rate,
)
from taidpt.judging.report import ThresholdComparison, compare
from taidpt.metrics import mean_average_precision
from taidpt.score_file import ScoreFile
from taidpt.score_transforms import SCORE_TRANSFORMS, transform_scores
from taidpt.transform_choice import choose_transform
from tests.taidpt.calibration.simulator import FAMILIES, Size, simulate

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int8]
Rows = npt.NDArray[np.int64]

FIELDS = [field.name for field in dataclasses.fields(ThresholdComparison)]
HEADS = {"merged": 0.5, "global": 0.0, "local": 1.0}
# The bars: macro-F1 below the slider by this many points at most, and on the mean of all rows by
# none; and no tag below this share of its own best F1.
MOST_BELOW, MOST_BELOW_LOCAL, MOST_BELOW_WEAK = 1.0, 2.0, 2.0
WORST_TAG, MOST_ERROR, MOST_ABSENT = 0.6, 0.03, 0.01

# What each rule or constant becomes in the ablation: a module, a name in it, another value.
ABLATIONS: dict[str, list[tuple[Any, str, Any]]] = {
    "as it is": [],
    "a frame weighs 1": [(estimator, "_MOST_WEIGHT", 1.0)],
    "a frame weighs 1/3": [(estimator, "_MOST_WEIGHT", 1 / 3)],
    "evidence without limit": [(estimator, "_MOST_EVIDENCE", np.inf)],
    "noise is used": [(estimator, "_STANDS_OUT", 0.0)],
    "tags are expected more often": [(hierarchy, "_TAGS_A_FRAME", 1e9)],
    "twice the tags in a frame": [(hierarchy, "_TAGS_A_FRAME", 3.0)],
    "all tags occur": [(hierarchy, "_ABSENT_FROM", 99)],
    "nine of ten tags occur, not learned": [(hierarchy, "_ABSENT_PRIOR", (1e6, 9e6))],
    "the positive part does not lean": [
        (hierarchy, "_MEAN", np.where(np.arange(8) == 7, 0.0, hierarchy._MEAN)),
        (hierarchy, "_SPREAD", np.where(np.arange(8) == 7, 1e-4, hierarchy._SPREAD)),
        (hierarchy, "_DOUBT", np.where(np.arange(8) == 7, 1e-4, hierarchy._DOUBT)),
        (hierarchy, "_START", np.where(np.arange(8) == 7, 1e-4, hierarchy._START)),
    ],
    "no restarts": [(hierarchy, "_RESTART", -1)],
    "blurred fits are used": [(estimator, "_BLURRED", -1.0)],
    "blurred from 0.6": [(estimator, "_BLURRED", 0.6)],
    "every tag teaches": [(hierarchy, "_TEACHES_FROM", -1.0), (hierarchy, "_TEACHES_FULLY", 0.0)],
    "tags differ as assumed": [(hierarchy, "_STRENGTH", 1e4)],
    "shares differ by 1.6, not 1": [
        (hierarchy, "_SPREAD", np.where(np.arange(8) == 5, 1.6, hierarchy._SPREAD))
    ],
    "5 rounds": [(hierarchy, "_ROUNDS", 5)],
    "a sign from 0.25": [(switch, "_SIGN", 0.25)],
    "unseen tags never on": [(estimator, "_FEWEST_EXAMPLES", np.inf)],
    "unseen tags on in 1 of 100": [(estimator, "_MOST_ON_UNSEEN", 0.01)],
    "unseen tags on in 1 of 1,000": [(estimator, "_MOST_ON_UNSEEN", 0.001)],
    "one scale for unseen tags": [(estimator, "_USUAL_SLOPE", 0.0)],
    "log-probabilities as they are": [(estimator, "_unpressed", lambda scores: scores)],
    "64 values a tag": [(sample, "_ENDS", 16), (sample, "_BLOCKS", 32)],
}


def main() -> None:
    """Parse, judge, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--real", type=Path, nargs="+", help="score files with targets")
    parser.add_argument("--ablation", action="store_true", help="change one rule after the other")
    parser.add_argument("--auto", action="store_true", help="judge the choice of a transform")
    parser.add_argument("--sizes", default="300,1000,all", help="frames of a draw of --real")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--families", default=";".join(FAMILIES))
    parser.add_argument("--seeds", default="100,101")
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--tags", type=int, default=40)
    parser.add_argument("--absent", type=float, default=0.0, help="share of tags that never occur")
    parser.add_argument("--transforms", default="none,center")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.auto:
        rows = list(_chosen(options))
    elif options.ablation:
        rows = list(_ablated(options))
    elif options.real:
        rows = [row for path in options.real for row in _real(path, options)]
    else:
        rows = _simulated(options)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def _chosen(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """mAP of plain scores, after the best fixed transform, and after the one that auto chooses."""
    matrices = {path.stem: ScoreFile.load(path) for path in options.real or ()}
    if not options.real:
        size = Size(options.frames, options.tags, options.absent)
        families, seeds = options.families.split(";"), options.seeds.split(",")
        for family, seed in itertools.product(families, seeds):
            matrices[f"{family} {seed}"] = simulate(family, int(seed), size)
    print(f"{'scores':32}{'none':>7}{'fixed':>7}{'auto':>7}  chosen")
    for name, matrix in matrices.items():
        for head, weight in HEADS.items() if options.real else [("merged", 0.5)]:
            scores = matrix.merged(weight)
            chosen, _ = choose_transform(scores)
            fixed = [_map(transform_scores(scores, kind), matrix) for kind in SCORE_TRANSFORMS]
            row = {"none": fixed[0], "fixed": max(fixed), "auto": _map(chosen(scores), matrix)}
            figures = "".join(f"{value:7.1f}" for value in row.values())
            print(f"{name + ', ' + head:32}{figures}  {chosen}", flush=True)
            yield {"scores": name, "head": head, **row, "chosen": str(chosen)}


def _map(scores: Floats, matrix: ScoreFile) -> float:
    """mAP in percent over the tags that have positives."""
    shown = (matrix.labels > 0).any(axis=0)
    return mean_average_precision(scores[:, shown], matrix.labels[:, shown]).value


def _ablated(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Macro-F1, absent tags on and calibration error under every change, of each kind of scores.

    Real scores: both heads and their mean, one draw of each size.
    """
    size = Size(options.frames, options.tags, options.absent)
    cases: dict[str, list[tuple[Floats, Targets]]] = {}
    for path in options.real or ():
        matrix = ScoreFile.load(path)
        draws = [
            next(_draws(len(matrix.labels), frames, 1))[0] for frames in options.sizes.split(",")
        ]
        cases[path.stem] = [
            (matrix.merged(weight)[rows], matrix.labels[rows])
            for weight in HEADS.values()
            for rows in draws
        ]
    matrices = [
        simulate(family, int(seed), size)
        for family in options.families.split(";")
        for seed in options.seeds.split(",")
    ]
    cases["simulated"] = [(matrix.merged(), matrix.labels) for matrix in matrices]
    print(f"{size.frames} simulated frames, {size.tags} tags, seeds {options.seeds}")
    print(f"{'':34}" + "".join(f"| {name:28}" for name in cases))
    print(f"{'change':34}" + "| macro-F1   absent on    ECE " * len(cases))
    for change, places in ABLATIONS.items():
        with contextlib.ExitStack() as stack:
            for module, name, value in places:
                stack.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, value)
            row = {name: _ablation_figures(of) for name, of in cases.items()}
        cells = (f"| {100 * f1:8.2f}{on:12.2%}{error:7.3f} " for f1, on, error in row.values())
        print(f"{change:34}" + "".join(cells), flush=True)
        yield {"change": change, **row}


def _ablation_figures(cases: list[tuple[Floats, Targets]]) -> tuple[float, float, float]:
    """Means of macro-F1, of the share of absent tags that are on, and of the calibration error."""
    figures = []
    for scores, targets in cases:
        found = calibrate(scores)
        macro = np.nanmean(f1_scores(scores, targets, found.on))
        absent = false_on_rate(scores, targets, found.on)
        error = expected_calibration_error(found.probabilities(scores), targets)
        figures.append((macro, np.nan_to_num(absent), error))
    f1, on, error = np.mean(figures, axis=0).tolist()
    return f1, on, error


def _real(path: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    matrix = ScoreFile.load(path)
    has_absent = not (matrix.labels > 0).any(axis=0).all()
    print(f"{path.name}: {matrix.labels.shape[0]} pictures, {len(matrix.names)} tags")
    print(
        f"{'head':8}{'transform':12}{'frames':>7}{'ours':>7}{'slider':>8}{'carried':>8}{'Otsu':>7}"
        f"{'each':>7}{'ECE':>8}{'absent on':>11}{'sure':>6}{'worst':>7}  missed"
    )
    rows = []
    for head, weight in HEADS.items():
        for transform in SCORE_TRANSFORMS:
            scores = matrix.merged(weight, transform)
            for size in options.sizes.split(","):
                draws = [
                    {
                        **_judged(scores[drawn], matrix.labels[drawn]),
                        "carried": _carried(scores, matrix.labels, drawn, others),
                    }
                    for drawn, others in _draws(len(scores), size, options.draws)
                ]
                row = {"head": head, "transform": transform, "frames": size}
                row |= {name: float(np.mean([one[name] for one in draws])) for name in draws[0]}
                row["missed"] = ", ".join(_missed(row, has_absent))
                rows.append(row)
                _print_real(row)
    for rival, name in (("single", "the slider"), ("carried", "the slider of other frames")):
        gaps = [100 * (row["ours"] - row[rival]) for row in rows]
        print(f"ours minus {name}: mean {np.mean(gaps):+.1f}, least {min(gaps):+.1f} points")
    return rows


def _draws(frames: int, size: str, draws: int) -> Iterator[tuple[Rows, Rows]]:
    """Rows to calibrate and judge on, and as many others, or as many as there are."""
    if size == "all":
        yield np.arange(frames), np.arange(0)
        return
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(frames)
        yield order[: int(size)], order[int(size) : 2 * int(size)]


def _carried(scores: Floats, targets: Targets, drawn: Rows, others: Rows) -> float:
    """Macro-F1 of one threshold for all tags, chosen with the labels of other frames."""
    pairs = [(others, drawn)]
    if not len(others):
        halves = np.array_split(np.random.default_rng(0).permutation(drawn), 2)
        pairs = [(halves[0], halves[1]), (halves[1], halves[0])]
    results = [
        f1_scores(scores[on], targets[on], best_single_threshold(scores[chosen], targets[chosen]))
        for chosen, on in pairs
    ]
    return float(np.mean([np.nanmean(result) for result in results]))


def _judged(scores: Floats, targets: Targets) -> dict[str, float]:
    """All figures of one matrix; `worst` is the least share that a tag reaches of its best F1."""
    found = calibrate(scores)
    row: dict[str, float] = dataclasses.asdict(compare(scores, targets, found))
    best = f1_scores(scores, targets, oracle_thresholds(scores, targets))
    row["worst"] = float(np.nanmin(f1_scores(scores, targets, found.on) / best))
    absent = ~(targets > 0).any(axis=0)
    row["absent_sure"] = sum(
        tag.sureness != "low" for tag, never in zip(found.tags, absent, strict=True) if never
    )
    return row


def _missed(row: dict[str, Any], has_absent: bool) -> Iterator[str]:
    """Which bars a row misses."""
    most = MOST_BELOW_LOCAL if row["head"] == "local" else MOST_BELOW
    most = MOST_BELOW_WEAK if has_absent else most
    checks = {
        "slider": row["ours"] >= row["single"] - most / 100,
        "Otsu": row["ours"] >= row["otsu"],
        "ECE": row["calibration_error"] <= MOST_ERROR,
        "worst tag": row["worst"] >= WORST_TAG,
        "absent": not has_absent or row["false_on"] <= MOST_ABSENT,
        "absent sure": not has_absent or row["absent_sure"] == 0,
    }
    yield from (name for name, met in checks.items() if not met)


def _print_real(row: dict[str, Any]) -> None:
    figures = "".join(f"{100 * row[name]:7.1f}" for name in ("carried", "otsu", "oracle"))
    print(
        f"{row['head']:8}{row['transform']:12}{row['frames']:>7}{100 * row['ours']:7.1f}"
        f"{100 * row['single']:8.1f} {figures}{row['calibration_error']:8.3f}"
        f"{row['false_on']:11.2%}{row['absent_sure']:6.1f}{row['worst']:7.2f}  {row['missed']}",
        flush=True,
    )


def _simulated(options: argparse.Namespace) -> list[dict[str, Any]]:
    size = Size(options.frames, options.tags, options.absent)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    print(f"{size.frames} frames, {size.tags} tags, mean of seeds {options.seeds}")
    print(f"{'family':18}{'scores':12}" + "".join(f"{name[:9]:>10}" for name in FIELDS) + "   s")
    rows = []
    for family in options.families.split(";"):
        for transform in options.transforms.split(","):
            rows.append(measure(family, transform, seeds, size))
            print_row(rows[-1])
    met = sum(row["ours"] >= row["single"] for row in rows)
    print(f"\nours at least the slider: {met} of {len(rows)} rows")
    return rows


def measure(family: str, transform: str, seeds: list[int], size: Size) -> dict[str, Any]:
    """Means over seeds of one family and transform."""
    found, started = [], time.perf_counter()
    for seed in seeds:
        matrix = simulate(family, seed, size)
        scores = matrix.merged(transform=transform)
        found.append(dataclasses.asdict(compare(scores, matrix.labels, calibrate(scores))))
    row = {name: float(np.mean([one[name] for one in found])) for name in FIELDS}
    seconds = (time.perf_counter() - started) / len(seeds)
    return {"family": family, "transform": transform, **row, "seconds": seconds}


def print_row(row: dict[str, Any]) -> None:
    """One line of the table; ! marks a row below the slider."""
    numbers = "".join(f"{row[name]:10.3f}" for name in FIELDS)
    missed = " !" if row["ours"] < row["single"] else ""
    print(
        f"{row['family']:18}{row['transform']:12}{numbers}{row['seconds']:6.1f}{missed}", flush=True
    )


if __name__ == "__main__":
    main()

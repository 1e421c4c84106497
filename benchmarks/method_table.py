"""The table of docs/benchmarks.md: a row a method, from the records of `taidpt research reproduce`.

    taidpt research reproduce 'toyworld-*' -o records
    python benchmarks/method_table.py records            # prints the table
    python benchmarks/method_table.py records --write    # puts it into docs/benchmarks.md

A recipe without a record is "not run here".
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import marked
from taidpt.evaluation.recipes import RECIPES

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- methods: benchmarks/method_table.py -->\n", "<!-- end of methods -->\n"

# method → its recipe on the toy world, and those on the papers' data sets
ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("zero-shot CLIP", "zsclip", ("voc2007-zsclip", "coco2014-zsclip")),
    ("the same, 80 templates", "zsclip80", ()),
    ("CLIP-DPT: with the local head", "clipdpt", ("voc2007-clipdpt", "coco2014-clipdpt")),
    ("the same, 80 templates", "clipdpt80", ()),
    ("TaI", "tai", ("voc2007-tai", "coco2014-tai")),
    (
        "TaI-DPT",
        "taidpt",
        (
            "voc2007-taidpt",
            "voc2007-taidpt-rn101",
            "coco2014-taidpt",
            "coco2014-taidpt-rn101",
            "nuswide-taidpt",
            "nuswide-taidpt-rn101",
            "coco-novel-taidpt",
            "voc-mlt-taidpt",
            "coco-mlt-taidpt",
            "coco-48-17-taidpt",
        ),
    ),
    ("scores centred a picture", "taidpt-center", ("voc2007-taidpt-center",)),
    (
        "log-softmax of scores, factor 1; published: 4",
        "taidpt-log_softmax",
        ("voc2007-taidpt-log_softmax",),
    ),
    ("name in the middle", "taidpt-middle", ()),
    ("name in front", "taidpt-front", ()),
    ("class-specific contexts", "taidpt-specific", ()),
    ("asymmetric loss", "taidpt-asymmetric", ()),
    ("binary cross-entropy", "taidpt-bce", ()),
    ("focal loss", "taidpt-focal", ()),
    ("text-only linear head", "linear", ("voc2007-linear", "coco2014-linear")),
    ("concept centroids", "centroids", ("voc2007-centroids-rn101", "coco2014-centroids-rn101")),
    ("mean: TaI-DPT, linear", "taidpt+linear", ()),
    ("mean: TaI-DPT, centroids", "taidpt+centroids", ()),
    ("mean of all three", "taidpt+centroids+linear", ()),
    (
        "templates, adapted to unlabelled pictures",
        "adapt",
        ("voc2007-adapt", "coco2014-adapt", "nuswide-adapt"),
    ),
    ("TaI-DPT, adapted to unlabelled pictures", "adapt-taidpt", ()),
    (
        "PIAA as published: classes compete",
        "piaa",
        ("voc2007-piaa", "coco2014-piaa", "nuswide-piaa"),
    ),
    ("CoOp, 1 shot", "coop-1-shot", ("coco-novel-coop-1-shot",)),
    ("CoOp, 5 shots", "coop-5-shot", ("coco-novel-coop-5-shot",)),
    ("CoOp, all train pictures", "coop", ()),
    ("DualCoOp, 5 shots", "dualcoop-5-shot", ("coco-novel-dualcoop-5-shot",)),
    ("DualCoOp, 10 % of labels", "dualcoop-10", ("voc2007-dualcoop-10", "coco2014-dualcoop-10")),
    ("DualCoOp, 90 % of labels", "dualcoop-90", ("voc2007-dualcoop-90", "coco2014-dualcoop-90")),
    ("ensemble, 5 shots", "ensemble-5-shot", ("coco-novel-ensemble-5-shot",)),
    (
        "ensemble, 10 % of labels",
        "ensemble-10",
        ("voc2007-ensemble-10", "coco2014-ensemble-10", "nuswide-ensemble-10"),
    ),
    (
        "ensemble, 90 % of labels",
        "ensemble-90",
        ("voc2007-ensemble-90", "coco2014-ensemble-90", "nuswide-ensemble-90"),
    ),
)


def read_maps(records: Path, name: str) -> list[float]:
    """mAP of each seed of a recipe; empty without a record."""
    path = records / f"{name}.json"
    return list(json.loads(path.read_text("utf-8"))["maps"]) if path.exists() else []


def ours(records: Path, name: str) -> str:
    """Mean over seeds, with the deviation where they differ; one seed alone says so."""
    maps = read_maps(records, name)
    if not maps:
        return "not run here"
    mean = f"{statistics.mean(maps):.1f}"
    if len(maps) == 1:
        return f"{mean} (one seed)"
    return mean if len(set(maps)) == 1 else f"{mean} ± {statistics.stdev(maps):.1f}"


def published(name: str) -> str:
    """The published figure and who printed it."""
    recipe = RECIPES[name]
    figure = "–" if recipe.published is None else f"{recipe.published} ({recipe.source})"
    return f"`{name}`: {figure}"


def table(records: Path) -> str:
    """The whole table in Markdown."""
    rows = [
        "| method | `taidpt research reproduce …` | mAP, toy world "
        "| recipes on real data: published mAP (source) | real data, ours |",
        "|---|---|---|---|---|",
    ]
    for label, toy, real in ROWS:
        found = "<br>".join(map(published, real)) or "–"
        runs = {name: ours(records, name) for name in real}
        run = [f"`{name}`: {value}" for name, value in runs.items() if value != "not run here"]
        here = "<br>".join(run) or "not run here"
        name = f"toyworld-{toy}"
        rows.append(f"| {label} | `{name}` | {ours(records, name)} | {found} | {here} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Print the table, or put it into the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("records", type=Path, help="folder of NAME.json")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    given = parser.parse_args()
    made = table(given.records)
    if not given.write:
        print(made, end="")
        return
    DOCUMENT.write_text(marked(DOCUMENT.read_text("utf-8"), BEGIN, END, made), "utf-8")


if __name__ == "__main__":
    main()

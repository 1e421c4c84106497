"""The whole line on real photographs with a small real model: methods, then thresholds.

    python benchmarks/photographs.py --model MODEL --data DATA           # prints the tables
    python benchmarks/photographs.py --model MODEL --data DATA --write   # writes the page

MODEL is a model folder in open_clip's form. DATA holds `photographs/coco-159` and
`photographs/flickr8k-dev` with a JSON file of names beside each, and `captions/
flickr8k.token.txt.gz`. Neither belongs to the repository. Prompts are tuned on the captions of all
Flickr8k pictures but the evaluated ones.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt

from benchmarks.harness import marked
from taidpt.clip.model import ClipModel, load_clip
from taidpt.datasets import LabelledImages, class_tags
from taidpt.evaluation.comparison import COLUMNS, MethodTable, compare_methods
from taidpt.evaluation.methods import MethodInputs
from taidpt.evaluation.table import Table
from taidpt.export.exporter import export_bundle
from taidpt.features.picture_store import store_features
from taidpt.judging.baselines import (
    best_single_threshold,
    oracle_thresholds,
    otsu_thresholds,
)
from taidpt.judging.measures import f1_scores
from taidpt.progress import BarProgress, Progress
from taidpt.runtime import Tagger, read_image
from taidpt.texts.labels import LabelledText, label_texts
from taidpt.tuning.settings import TuneSettings

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "photographs.md"
BEGIN, END = "<!-- photographs: benchmarks/photographs.py -->\n", "<!-- end of photographs -->\n"
METHODS = ("zsclip", "zsclip80", "clipdpt", "clipdpt80", "tai", "taidpt", "centroids", "linear")
TUNED = ("tai", "taidpt", "linear")  # methods whose result depends on the seed
# Average precision and F1 of a name with fewer positives than this depend on single pictures.
LEAST_POSITIVES = {"flickr8k-dev": 5, "coco-159": 5}
BATCH = 16

Matrix = npt.NDArray[Any]


@dataclass(frozen=True)
class Data:
    """The evaluated pictures, and labelled captions of other pictures."""

    flickr: LabelledImages
    coco: LabelledImages
    captions: list[LabelledText]


def read_data(root: Path, most: int | None) -> Data:
    """Read DATA's folder, with at most so many captions."""
    photographs = root / "photographs"
    flickr = json.loads((photographs / "flickr8k-dev.json").read_text("utf-8"))
    coco = json.loads((photographs / "coco-159.json").read_text("utf-8"))
    names = {picture: record["names"] for picture, record in flickr.items()}
    texts = other_captions(root / "captions" / "flickr8k.token.txt.gz", set(flickr))
    captions = list(label_texts(texts, class_tags("coco2014")))
    if most is not None:
        captions = captions[:: max(1, len(captions) // most)][:most]
    return Data(
        labelled("flickr8k-dev", photographs, names),
        labelled("coco-159", photographs, coco),
        captions,
    )


def labelled(name: str, root: Path, names: dict[str, list[str]]) -> LabelledImages:
    """Pictures of a folder with the names that each shows."""
    tags = class_tags("coco2014")
    targets = np.full((len(names), len(tags)), -1, np.int8)
    for row, shown in enumerate(names.values()):
        targets[row, [tags.names.index(item) for item in shown]] = 1
    paths = tuple(root / name / picture for picture in names)
    return LabelledImages(name, tags, tuple(names), paths, targets)


def other_captions(path: Path, left_out: set[str]) -> Iterator[str]:
    """Captions `picture#n<TAB>caption` of all pictures but some."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            picture, _, caption = line.partition("\t")
            if picture.partition("#")[0] not in left_out:
                yield caption.strip()


def tune_settings(seed: int, rate: float) -> TuneSettings:
    """The published settings with another learning rate."""
    return TuneSettings(seed=seed, lr=rate)


def method_rows(
    clip: ClipModel,
    images: LabelledImages,
    captions: list[LabelledText],
    options: argparse.Namespace,
    cache: Path,
    progress: Progress,
) -> list[list[str]]:
    """One row a method: mean mAP of each column, over the names with enough positives."""
    counted = np.flatnonzero((images.targets > 0).sum(axis=0) >= LEAST_POSITIVES[images.name])
    features = store_features(clip, images, cache, progress=progress)
    tables: list[MethodTable] = []
    for seed in range(options.seeds):
        inputs = MethodInputs(
            clip,
            images.tags,
            captions,
            tuning=tune_settings(seed, options.lr),
            keep=cache,
            progress=progress,
        )
        methods = METHODS if seed == 0 else TUNED
        tables.append(compare_methods(methods, inputs, images, lambda _: features))
    tables[0].save_scores(cache / "scores" / images.name)
    rows = []
    for index, method in enumerate(METHODS):
        results = [
            table.results[index if seed == 0 else TUNED.index(method)].maps
            for seed, table in enumerate(tables)
            if seed == 0 or method in TUNED
        ]
        cells = [
            cell([float(maps[column].per_class[counted].mean()) for maps in results])
            if column in results[0]
            else "–"
            for column in COLUMNS
        ]
        rows.append([f"`{method}`", *cells])
    return rows


def cell(values: list[float]) -> str:
    """A mean, with the standard deviation over seeds where there are several."""
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.1f}"


def threshold_rows(prompts: Path, data: Data, work: Path, progress: Progress) -> list[list[str]]:
    """Macro-F1 of one half of the Flickr8k pictures, and of COCO's, for each way to thresholds."""
    half = len(data.flickr) // 2
    scene, evaluated = data.flickr.subset(range(half)), data.flickr.subset(range(half, 2 * half))
    bundle = work / "photographs.taidpt"
    export_bundle(prompts, bundle, progress=progress)
    from_captions = [decisions(bundle, images) for images in (evaluated, data.coco)]
    frames = work / "frames"
    frames.mkdir()
    for path in scene.paths:
        (frames / path.name).symlink_to(path)
    command = [sys.executable, "-m", "taidpt", "calibrate", str(bundle), "--frames", str(frames)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    from_frames = [decisions(bundle, images) for images in (evaluated, data.coco)]
    rows: dict[str, list[float]] = {}
    for images, captions, calibrated in zip(
        (evaluated, data.coco), from_captions, from_frames, strict=True
    ):
        targets, scores = images.targets, captions[0]
        counted = (targets > 0).sum(axis=0) >= LEAST_POSITIVES[images.name]
        targets, scores = targets[:, counted], scores[:, counted]

        def macro(thresholds: Matrix, scores: Matrix = scores, targets: Matrix = targets) -> float:
            return 100 * float(np.mean(f1_scores(scores, targets, thresholds)))

        for name, value in (
            ("from captions", f1_of(captions[1][:, counted], targets)),
            (
                f"from {half} unlabelled pictures of Flickr8k",
                f1_of(calibrated[1][:, counted], targets),
            ),
            (
                "Otsu's threshold of each tag, on the evaluated pictures",
                macro(otsu_thresholds(scores)),
            ),
            (
                "one threshold for all tags, chosen with labels",
                macro(best_single_threshold(scores, targets)),
            ),
            (
                "each tag's best threshold, chosen with labels",
                macro(oracle_thresholds(scores, targets)),
            ),
        ):
            rows.setdefault(name, []).append(value)
    return [[name, *(f"{value:.1f}" for value in values)] for name, values in rows.items()]


def decisions(bundle: Path, images: LabelledImages) -> tuple[Matrix, Matrix]:
    """Scores and decisions of a bundle's tagger, [N, C] each."""
    scores, on = [], []
    with Tagger.load(bundle) as tagger:
        for start in range(0, len(images), BATCH):
            frames = [read_image(path) for path in images.paths[start : start + BATCH]]
            batch = tagger.tag_batch(frames)
            scores.append(batch.scores)
            on.append(batch.on)
        order = [tagger.names.index(name) for name in images.classes]
    return np.concatenate(scores)[:, order].astype(float), np.concatenate(on)[:, order]


def f1_of(on: Matrix, targets: Matrix) -> float:
    """Macro-F1 of decisions, in percent."""
    right = (on & (targets > 0)).sum(axis=0)
    total = on.sum(axis=0) + (targets > 0).sum(axis=0)
    return 100 * float(np.mean(2 * right / np.maximum(total, 1)))


def report(options: argparse.Namespace, work: Path) -> str:
    """Both tables as Markdown."""
    clip, data = load_clip(str(options.model)), read_data(options.data, options.captions)
    parts = [
        f"{len(data.captions):,} captions that name one of the 80 tags, of pictures other than the "
        f"evaluated ones; learning rate {options.lr:g}, {options.seeds} seeds (± standard "
        "deviation); mAP in percent."
    ]
    with BarProgress() as progress:
        for images in (data.flickr, data.coco):
            rows = method_rows(clip, images, data.captions, options, work / "cache", progress)
            least = LEAST_POSITIVES[images.name]
            count = int(((images.targets > 0).sum(axis=0) >= least).sum())
            parts.append(
                f"**{images.name}**: {len(images):,} pictures, {count} names with {least} "
                "positives or more.\n\n" + Table(["method", *COLUMNS], rows).markdown()
            )
        # prompts of seed 0, tuned above and kept
        inputs = MethodInputs(
            clip,
            data.flickr.tags,
            data.captions,
            tuning=tune_settings(0, options.lr),
            keep=work / "cache",
            progress=progress,
        )
        features = store_features(clip, data.coco, work / "cache", progress=progress)
        compare_methods(["taidpt"], inputs, data.coco, lambda _: features)
        prompts = work / "prompts.safetensors"
        inputs.used["taidpt"].save(prompts)
        rows = threshold_rows(prompts, data, work, progress)
    columns = ["thresholds", "the other 500 of Flickr8k", "coco-159"]
    parts.append("Macro-F1 of TaI-DPT's tags (seed 0):\n\n" + Table(columns, rows).markdown())
    return "\n".join(part.rstrip() + "\n" for part in parts)


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures and captions")
    parser.add_argument("--seeds", type=int, default=3, help="runs of tuned methods [default: 3]")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate [default: 1e-3]")
    parser.add_argument(
        "--captions", type=int, help="captions to tune on, evenly chosen [default: all]"
    )
    parser.add_argument("--work", type=Path, help="folder to keep features, prompts and scores in")
    parser.add_argument("--write", action="store_true", help=f"write into {DOCUMENT.name}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="taidpt-") as folder:
        text = report(options, options.work or Path(folder))
    print(text)
    if options.write:
        page = DOCUMENT.read_text("utf-8")
        DOCUMENT.write_text(marked(page, BEGIN, END, text), "utf-8")


if __name__ == "__main__":
    main()

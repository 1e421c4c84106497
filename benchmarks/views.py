"""Views side by side: mAP by place and size of things, on wide scenes and photographs, and cost.

    python benchmarks/views.py                                    # the toy world
    python benchmarks/views.py --model MODEL --data DATA --write  # photographs too; the page

The scenes come from the toy world's own generator, 640 × 360 with seeds and backgrounds that no
training saw (needs Noto Color Emoji). MODEL and DATA are as for `benchmarks/photographs.py`, of
whose 159 pictures of COCO those in landscape format are taken, as from a camera. Tags are templates
("a photo of a dog."), so that nothing depends on a tuning.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import in_turns, marked
from scripts.toyworld.drawing.backgrounds import HELDOUT_FAMILIES
from scripts.toyworld.drawing.scenes import Scene, SceneSettings, render_scene
from scripts.toyworld.drawing.things import TAG_NAMES
from taidpt.clip.model import ClipModel, load_clip
from taidpt.datasets import class_tags
from taidpt.evaluation.table import Table
from taidpt.export.classes.bake import bank_from_embeddings
from taidpt.export.classes.banked_classes import BankedClasses
from taidpt.export.exporter import ExportOptions, write_bundle
from taidpt.features.prompt_encoder import encode_texts
from taidpt.progress import SilentProgress
from taidpt.runtime import Tagger, paint_heatmap, read_image
from taidpt.texts.templates import PLAIN_TEMPLATE
from taidpt.toyworld.assets import load_heldout

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "views.md"
PICTURE = DOCUMENT.parent / "images" / "views.png"
BEGIN, END = "<!-- views: benchmarks/views.py -->\n", "<!-- end of views -->\n"
VIEWS = ("crop", "whole", "wide", "tiles:2", "tiles:6")
# First number of a scene's seed; the toy world's own splits and its video use other numbers.
SPLIT = 9
# Two to five things a scene, and things from a tenth of the height on, which is below what the
# model saw in training (0.15): small things of a wide frame.
SETTINGS = SceneSettings(
    size=360,
    width=640,
    families=HELDOUT_FAMILIES,
    count_weights=(0.0, 0.2, 0.3, 0.3, 0.2),
    sides=(0.10, 0.36),
)
# Longer side as a share of the frame's height: three groups of about as many things.
SIZES = (0.18, 0.27)
# Places differ in how many things are there, and average precision rises with that number. All
# groups are brought to this share of positives, by weight.
SHARE = 0.05
COCO_TEMPERATURE = 10.0  # what the shared model was measured with
BATCH = 8

Matrix = npt.NDArray[Any]


@dataclass(frozen=True)
class Pictures:
    """Frames with their tags.

    Attributes:
        frames: uint8 RGB [H, W, 3] each.
        shown: whether a tag is shown, bool [N, C].
        place: of shown tags: 0 inside the centre crop, 1 cut by its edge, 2 outside; −1 else.
        size: of shown tags: 0 small, 1 middle, 2 large; −1 else.
    """

    frames: Sequence[Matrix]
    shown: npt.NDArray[np.bool_]
    place: npt.NDArray[np.int64] | None = None
    size: npt.NDArray[np.int64] | None = None


def wide_scenes(count: int) -> tuple[list[Scene], Pictures]:
    """Scenes, and what is where in them; of a thing shown twice, the more central one counts."""
    scenes = [render_scene((SPLIT, index), SETTINGS) for index in range(count)]
    shape = len(scenes), len(TAG_NAMES)
    place, size = np.full(shape, -1), np.full(shape, -1)
    height, width = SETTINGS.size, SETTINGS.width or SETTINGS.size
    first, last = (width - height) / 2, (width + height) / 2
    for row, scene in enumerate(scenes):
        for placed in scene.placed:
            left, top, right, bottom = placed.box
            inside = max(0.0, min(right, last) - max(left, first)) / (right - left)
            where = 0 if inside > 0.95 else 2 if inside < 0.05 else 1
            cell = row, placed.thing
            place[cell] = where if place[cell] < 0 else min(place[cell], where)
            share = max(right - left, bottom - top) / height
            size[cell] = max(size[cell], int(np.digitize(share, SIZES)))
    return scenes, Pictures([scene.image for scene in scenes], place >= 0, place, size)


def landscape_photographs(root: Path) -> Pictures:
    """COCO's pictures that are wider than high, with official names."""
    facts = json.loads((root / "photographs" / "coco-159.json").read_text("utf-8"))
    names = list(class_tags("coco2014").names)
    pictures = {name: read_image(root / "photographs" / "coco-159" / name) for name in facts}
    wide = {name: p for name, p in pictures.items() if p.shape[1] > p.shape[0]}
    shown = np.zeros((len(wide), len(names)), bool)
    for row, name in enumerate(wide):
        shown[row, [names.index(tag) for tag in facts[name] if tag in names]] = True
    return Pictures(list(wide.values()), shown)


def export_views(
    clip: ClipModel, tags: Sequence[str], views: Sequence[str], temperature: float, folder: Path
) -> dict[str, Tagger]:
    """A tagger a view, of the same rows."""
    rows = encode_texts(clip, [PLAIN_TEMPLATE.replace("{}", tag) for tag in tags])
    bank = bank_from_embeddings(tuple(tags), rows, rows, {"model": clip.identity()})
    taggers = {}
    for view in views:
        path = folder / f"{view.replace(':', '-')}.taidpt"
        options = ExportOptions(view=view, temperature=temperature)
        write_bundle(BankedClasses(bank), clip, path, options, SilentProgress())
        taggers[view] = Tagger.load(path, threads=1)
    return taggers


def scores_of(tagger: Tagger, frames: Sequence[Matrix]) -> Matrix:
    """Merged scores [N, C]."""
    starts = range(0, len(frames), BATCH)
    return np.concatenate([tagger.tag_batch(list(frames[s : s + BATCH])).scores for s in starts])


def weighted_map(scores: Matrix, positive: Matrix, counted: Matrix, least: int) -> float:
    """Mean average precision in percent, with positives weighted to `SHARE` of a tag's frames.

    Args:
        scores: [N, C].
        positive, counted: which pairs are positives, and which count at all; [N, C].
        least: tags with fewer positives are left out.
    """
    values = []
    for tag in range(scores.shape[1]):
        rows = np.flatnonzero(counted[:, tag])
        hit = positive[rows, tag][np.argsort(-scores[rows, tag], kind="stable")]
        positives = int(hit.sum())
        if positives < least:
            continue
        weight = SHARE / (1 - SHARE) * (len(hit) - positives) / positives
        true, false = weight * np.cumsum(hit), np.cumsum(~hit)
        values.append(float((true / np.maximum(true + false, 1e-12))[hit].mean()))
    return 100 * float(np.mean(values))


def by_group(scores: Matrix, pictures: Pictures) -> list[float]:
    """All things; inside, cut and outside; small, middle and large."""
    assert pictures.place is not None
    assert pictures.size is not None
    found = [weighted_map(scores, pictures.shown, np.ones_like(pictures.shown), 3)]
    for groups in (pictures.place, pictures.size):
        for group in range(3):
            positive = groups == group
            counted = positive | (groups < 0)
            found.append(weighted_map(scores, positive, counted, 3))
    return found


def choices(count: int, folder: Path) -> list[list[str]]:
    """What was chosen and its alternative, by mAP of all things on wide scenes, or on squares."""
    _, pictures = wide_scenes(count)
    views = ("crop", "whole", "wide", "tiles:2")
    toy = export_views(load_clip("toyworld", "embedded"), TAG_NAMES, views, 40.0, folder)
    everything = np.ones_like(pictures.shown)

    def value(scores: Matrix) -> str:
        return f"{weighted_map(scores, pictures.shown, everything, 3):.1f}"

    padded = [_padded(frame) for frame in pictures.frames]
    tiles = toy["tiles:2"]
    rows = tiles.class_bank.global_embeddings
    best, mean = [], []
    for start in range(0, count, BATCH):
        outputs = tiles.tag_batch(list(pictures.frames[start : start + BATCH])).outputs
        by_tile = outputs["global_features"] @ rows.T
        average = outputs["global_features"].mean(axis=1)
        average /= np.linalg.norm(average, axis=1, keepdims=True)
        best.append(outputs["scores"])
        mean.append(outputs["scores"] + 2 * (average @ rows.T - by_tile.max(axis=1)))
    squares, labels, _ = load_heldout(every=2)
    counted = np.ones_like(labels, bool)
    on_squares = [
        f"{weighted_map(scores_of(toy[view], squares), labels > 0, counted, 3):.1f}"
        for view in ("crop", "wide")
    ]
    return [
        ["whole: squeezed, padded", value(scores_of(toy["whole"], pictures.frames)),
         value(scores_of(toy["crop"], padded))],
        ["tiles:2, global score: best tile, mean of the tiles", value(np.concatenate(best)),
         value(np.concatenate(mean))],
        ["square pictures: crop, wide", *on_squares],
    ]  # fmt: skip


def _padded(frame: Matrix) -> Matrix:
    """A frame in the middle of a square of CLIP's mean colour."""
    height, width = frame.shape[:2]
    square = np.empty((width, width, 3), np.uint8)
    square[:] = (123, 117, 104)
    top = (width - height) // 2
    square[top : top + height] = frame
    return square


def milliseconds(taggers: dict[str, Tagger], repeats: int) -> dict[str, float]:
    """Median time of a 720p frame with its resize, on one thread, in turns."""
    frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    calls = {view: lambda tagger=tagger: tagger(frame) for view, tagger in taggers.items()}  # type: ignore[misc]
    return {view: times["p50"] for view, times in in_turns(calls, repeats).items()}


def draw_picture(scenes: Sequence[Scene], taggers: dict[str, Tagger], target: Path) -> str:
    """The heatmaps of crop and wide for a small thing near the edge; what is shown.

    The scene is the first whose outermost thing `wide` puts among its best three.
    """
    height, width = SETTINGS.size, SETTINGS.width or SETTINGS.size
    for scene in scenes:
        outer = max(scene.placed, key=lambda p: abs(p.box[0] + p.box[2] - width))
        distance = abs(outer.box[0] + outer.box[2] - width) / 2
        small = outer.box[3] - outer.box[1] < 0.25 * height
        tag = TAG_NAMES[outer.thing]
        best = [found.name for found in taggers["wide"](scene.image).top(3)]
        if distance > 0.7 * height and small and tag in best:
            break
    parts = []
    for view in ("crop", "wide"):
        result = taggers[view](scene.image)
        spec = taggers[view].bundle.manifest.input
        painted = paint_heatmap(Image.fromarray(scene.image), result, tag, spec)
        parts.append(np.asarray(painted.resize((width // 2, height // 2))))
    gap = np.full((height // 2, 8, 3), 255, np.uint8)
    Image.fromarray(np.concatenate([parts[0], gap, parts[1]], axis=1)).quantize(128).save(target)
    ranks = [
        1 + [found.name for found in taggers[view](scene.image).tags].index(tag)
        for view in ("crop", "wide")
    ]
    return (
        f"![heatmaps of crop and wide](images/{target.name})\n\nThe heatmap of *{tag}* in `crop` "
        f"and in `wide`. By score it is tag {ranks[0]} of 60 in the one and tag {ranks[1]} in the "
        "other."
    )


def report(options: argparse.Namespace, folder: Path) -> str:
    """The page's part that is measured, in Markdown."""
    scenes, pictures = wide_scenes(options.scenes)
    views = tuple(options.views)
    toy = export_views(load_clip("toyworld", "embedded"), TAG_NAMES, views, 40.0, folder)
    groups = {view: by_group(scores_of(toy[view], pictures.frames), pictures) for view in views}
    times = milliseconds(toy, options.repeats)
    coco: dict[str, float] = {}
    photographs = None
    if options.model is not None:
        photographs = landscape_photographs(options.data)
        names = list(class_tags("coco2014").names)
        for view in views:
            shape = ":4x3" if view.startswith(("wide", "tiles")) else ""
            place = folder / "coco"
            place.mkdir(exist_ok=True)
            model = load_clip(str(options.model))
            (tagger,) = export_views(model, names, [view + shape], COCO_TEMPERATURE, place).values()
            scores = scores_of(tagger, photographs.frames)
            coco[view] = weighted_map(scores, photographs.shown, np.ones_like(photographs.shown), 3)
            tagger.close()
    rows: list[list[str]] = []
    inside, outside = groups["crop"][1], groups["crop"][3]
    for view in views:
        spec = toy[view].bundle.manifest.input
        cells = [f"{value:.1f}" for value in groups[view]]
        regained = (groups[view][3] - outside) / (inside - outside)
        rows.append(
            [
                f"`{view}`",
                f"{spec.width} × {spec.height}",
                f"{times[view] / times['crop']:.2f}",
                f"{1000 / times[view]:.0f}",
                *cells,
                "–" if view == "crop" else f"{regained:.0%}",
                *([f"{coco[view]:.1f}"] if coco else []),
            ]
        )
    columns = ["view", "input", "cost", "frames/s", "all", "inside", "cut", "outside"]
    columns += ["small", "middle", "large", "regained", *(["photographs"] if coco else [])]
    things = int(pictures.shown.sum())
    about = (
        f"{len(scenes)} wide scenes, {things:,} things; mAP in percent, positives weighted to "
        f"{SHARE:.0%} of the frames so that groups compare. *inside*, *cut*, *outside*: of the "
        "centre crop. *small*: up to 0.18 of the height, *large*: from 0.27 on. *cost*, "
        "*frames/s*: a 720p frame with its resize, one thread. *regained*: of what things outside "
        "lose in `crop` against those inside."
    )
    if photographs is not None:
        known = int((photographs.shown.sum(axis=0) >= 3).sum())
        about += (
            f" *photographs*: {len(photographs.frames)} landscape pictures of COCO, `wide` and "
            f"`tiles` of 4:3, {known} names with 3 positives or more."
        )
    target = PICTURE if options.write else folder / PICTURE.name
    parts = [about, Table(columns, rows).markdown()]
    if {"crop", "wide"} <= set(views):
        parts.append(draw_picture(scenes, toy, target))
    for tagger in toy.values():
        tagger.close()
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="model folder, for photographs")
    parser.add_argument("--data", type=Path, help="folder of pictures, for photographs")
    parser.add_argument("--scenes", type=int, default=900, help="wide scenes [default: 900]")
    parser.add_argument("--views", nargs="+", default=VIEWS, help=f"[default: {' '.join(VIEWS)}]")
    parser.add_argument("--repeats", type=int, default=40, help="timed frames [default: 40]")
    parser.add_argument(
        "--choices", action="store_true", help="print what was chosen and its alternative, alone"
    )
    parser.add_argument("--write", action="store_true", help=f"write into {DOCUMENT.name}")
    options = parser.parse_args()
    if (options.model is None) != (options.data is None):
        parser.error("--model and --data go together")
    with tempfile.TemporaryDirectory(prefix="taidpt-") as folder:
        if options.choices:
            rows = choices(options.scenes, Path(folder))
            print(Table(["choice, mAP", "taken", "not taken"], rows).markdown())
            return
        text = report(options, Path(folder))
    print(text)
    if options.write:
        page = DOCUMENT.read_text("utf-8")
        DOCUMENT.write_text(marked(page, BEGIN, END, text), "utf-8")


if __name__ == "__main__":
    main()

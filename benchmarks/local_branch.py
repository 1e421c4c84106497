"""How sharp patch features are, by local branch: patches against the scenes' own segmentation.

    python benchmarks/local_branch.py                              # the toy world's model
    python benchmarks/local_branch.py --model ViT-B-16 --pretrained openai
    python benchmarks/local_branch.py --model DIR                  # any model with both branches

The scenes come from the toy world's own generator, whose boxes say which patch shows what (needs
Noto Color Emoji). Rows are templates ("a photo of a dog."). *ROC AUC*: how well a tag's similarity
tells the patches of its thing from the background's, mean over things. *patch accuracy*: share of a
thing's patches at which its tag is the most similar one of 60. *local mAP*, *merged mAP*: of whole
pictures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import marked
from scripts.toyworld.drawing.backgrounds import HELDOUT_FAMILIES
from scripts.toyworld.drawing.scenes import Scene, SceneSettings, render_scene
from scripts.toyworld.drawing.things import TAG_NAMES
from taidpt.clip.model import ClipModel, load_clip
from taidpt.encoders.local_branch import image_encoder
from taidpt.evaluation.table import Table
from taidpt.features.pictures import encode_pictures
from taidpt.features.prompt_encoder import plain_class_embeddings
from taidpt.metrics import mean_average_precision
from taidpt.runtime.bundle.manifest import LOCAL_BRANCHES
from taidpt.scores import global_scores, local_scores, merged_scores
from taidpt.texts.templates import PLAIN_TEMPLATE

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "models.md"
BEGIN, END = "<!-- local branch: benchmarks/local_branch.py -->\n", "<!-- end of local branch -->\n"
# First number of a scene's seed; the toy world's own splits and other benchmarks use other numbers.
SPLIT = 11
# A patch shows a thing if the thing's box covers this share of it, and background if no box covers
# more than the other share; patches between the two do not count.
THING, BACKGROUND = 0.6, 0.05

Matrix = npt.NDArray[Any]


def scenes_for(size: int, count: int) -> list[Scene]:
    """Scenes as the model sees them; things of a quarter to a half, which cover whole patches."""
    settings = SceneSettings(
        size=size, families=HELDOUT_FAMILIES, count_weights=(0.3, 0.5, 0.2), sides=(0.25, 0.5)
    )
    return [render_scene((SPLIT, index), settings) for index in range(count)]


def coverage(box: Sequence[int], grid: tuple[int, int], size: int) -> Matrix:
    """Share of each patch that a box covers, [rows · columns]."""
    parts = []
    for count, first, last in ((grid[0], box[1], box[3]), (grid[1], box[0], box[2])):
        edges = np.linspace(0, size, count + 1)
        inside = np.minimum(edges[1:], last) - np.maximum(edges[:-1], first)
        parts.append(np.clip(inside, 0, None) * count / size)
    return np.outer(*parts).ravel()


def things_of(scene: Scene, grid: tuple[int, int], size: int) -> Iterator[tuple[int, Matrix]]:
    """Tags of a scene with the coverage of patches by all things of the tag."""
    for thing in scene.things:
        boxes = [placed.box for placed in scene.placed if placed.thing == thing]
        yield thing, np.max([coverage(box, grid, size) for box in boxes], axis=0)


def area_under_curve(inside: Matrix, outside: Matrix) -> float:
    """Chance that a patch inside is more similar than one outside; half for ties."""
    above = (inside[:, None] > outside[None, :]).mean()
    return float(above + 0.5 * (inside[:, None] == outside[None, :]).mean())


def sharpness(
    similarity: Matrix, scenes: Sequence[Scene], grid: tuple[int, int], size: int
) -> tuple[float, float]:
    """Mean ROC AUC of things and mean patch accuracy, in percent, of similarities [N, P, C]."""
    areas, hits = [], []
    for row, scene in zip(similarity, scenes, strict=True):
        covered = dict(things_of(scene, grid, size))
        background = np.max(list(covered.values()), axis=0) < BACKGROUND
        for tag, share in covered.items():
            inside = share >= THING
            if inside.any() and background.any():
                areas.append(area_under_curve(row[inside, tag], row[background, tag]))
                hits.append(float((row[inside].argmax(axis=1) == tag).mean()))
    return 100 * float(np.mean(areas)), 100 * float(np.mean(hits))


def measured(clip: ClipModel, scenes: Sequence[Scene], temperature: float) -> list[str]:
    """A row of the table for a model with its branch."""
    features = encode_pictures(clip, [scene.image for scene in scenes])
    rows = plain_class_embeddings(clip, list(TAG_NAMES), [PLAIN_TEMPLATE])
    patches = features.patch_features
    grid = image_encoder(clip).grid(clip.image_size, clip.image_size)
    similarity = (patches @ rows.T).numpy()
    sharp = sharpness(similarity, scenes, grid, clip.image_size)
    shown = np.zeros((len(scenes), len(TAG_NAMES)))
    for index, scene in enumerate(scenes):
        shown[index, list(scene.things)] = 1
    local = local_scores(patches, rows, temperature)
    merged = merged_scores(global_scores(features.global_features, rows), local)
    maps = [
        mean_average_precision(torch.as_tensor(scores).numpy(), shown).value
        for scores in (local, merged)
    ]
    return [f"`{clip.local_branch}`", *(f"{value:.1f}" for value in (*sharp, *maps))]


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="toyworld", help="name or folder [default: toyworld]")
    parser.add_argument("--pretrained", help="weights [default: the folder's, or the toy world's]")
    parser.add_argument("--scenes", type=int, default=600, help="scenes [default: 600]")
    parser.add_argument("--temperature", type=float, default=40.0, help="[default: 40]")
    parser.add_argument("--write", action="store_true", help=f"write into {DOCUMENT.name}")
    options = parser.parse_args()
    clip = load_clip(options.model, options.pretrained)
    scenes = scenes_for(clip.image_size, options.scenes)
    rows = [
        measured(replace(clip, local_branch=branch), scenes, options.temperature)
        for branch in LOCAL_BRANCHES
    ]
    columns = ["`--local-branch`", "ROC AUC", "patch accuracy", "local mAP", "merged mAP"]
    text = Table(columns, rows).markdown()
    print(text)
    if options.write:
        page = DOCUMENT.read_text("utf-8")
        DOCUMENT.write_text(marked(page, BEGIN, END, text), "utf-8")


if __name__ == "__main__":
    main()

"""mAP with and without `taidpt adapt`, on pictures that it has not seen.

    python benchmarks/adapt.py                                       # prints the table
    python benchmarks/adapt.py --model MODEL --data DATA --write     # photographs too; the page

Frames to adapt to and frames to judge are halves of the same pictures, drawn anew for each seed;
tuned rows have the seed of the draw. Those of the toy world are new scenes of its generator, on
which nothing was chosen (needs Noto Color Emoji). MODEL and DATA are as for
`benchmarks/photographs.py`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.background_tags import tuned
from benchmarks.harness import marked
from benchmarks.photographs import LEAST_POSITIVES, read_data
from scripts.toyworld.drawing.backgrounds import HELDOUT_FAMILIES
from scripts.toyworld.drawing.scenes import SceneSettings, render_scene
from scripts.toyworld.drawing.things import TAG_NAMES
from taidpt.clip.model import ClipModel, load_clip
from taidpt.datasets import LabelledImages, load_dataset
from taidpt.evaluation.table import Table
from taidpt.features.picture_store import store_features
from taidpt.features.pictures import encode_pictures
from taidpt.features.prompt_encoder import plain_class_embeddings
from taidpt.metrics import mean_average_precision
from taidpt.progress import SilentProgress
from taidpt.runtime.adapting.discriminant import PatchChoice, choose_patches, fit, refine
from taidpt.runtime.adapting.examples import examples_to_bank, put_tags
from taidpt.runtime.adapting.scene_rows import adapt_bank
from taidpt.runtime.adapting.similarity import Features, bank_scores
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.runtime.errors import InputError
from taidpt.texts.templates import PLAIN_TEMPLATE
from taidpt.toyworld import assets
from taidpt.tuning.settings import TuneSettings

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "adapt.md"
PICTURE = DOCUMENT.parent / "images" / "adapt.png"
# First number of a scene's seed; the toy world's own splits and other benchmarks use other numbers.
SPLIT, SCENES = 13, 1000
BEGIN, END = "<!-- adapt: benchmarks/adapt.py -->\n", "<!-- end of adapt -->\n"
# Frames to adapt to; all of a half where there are fewer.
FRAMES = (32, 130, 500)
EXAMPLES = (1, 5, 20)
PHOTOGRAPH_TEMPERATURE = 10.0  # what the shared model was measured with
COLUMNS = ("rows", "as they are", *(f"{count} frames" for count in FRAMES), "weight")

Matrix = npt.NDArray[Any]


@dataclass(frozen=True)
class World:
    """Pictures as features, with their tags.

    Attributes:
        features: of all pictures. targets: above 0 where a tag is shown, [N, C].
        counted: the tags that have enough positives to count.
        scoring: of the model.
    """

    features: Features
    targets: Matrix
    counted: Matrix
    scoring: Scoring

    def value(self, bank: ClassBank, judged: Matrix) -> float:
        """mAP in percent on the judged pictures."""
        return float(np.nanmean(self.each(bank, judged)))

    def each(self, bank: ClassBank, judged: Matrix) -> Matrix:
        """Average precision of each counted tag, in percent."""
        scores = bank_scores(self.features.part(judged), bank, self.scoring)
        return mean_average_precision(scores, self.targets[judged]).per_class[self.counted]


def read_world(clip: ClipModel, images: LabelledImages, scoring: Scoring, least: int) -> World:
    """Run the encoder once."""
    with tempfile.TemporaryDirectory() as folder:
        stored = store_features(clip, images, Path(folder), progress=SilentProgress())
        features = Features(
            stored.global_features.float().numpy(), stored.patch_features.float().numpy()
        )
    counted = np.flatnonzero((images.targets > 0).sum(axis=0) >= least)
    return World(features, images.targets, counted, scoring)


def toy_world(clip: ClipModel, tags: Sequence[str]) -> World:
    """New scenes before backgrounds that no training saw."""
    settings = SceneSettings(size=clip.image_size, families=HELDOUT_FAMILIES)
    scenes = [render_scene((SPLIT, index), settings) for index in range(SCENES)]
    stored = encode_pictures(clip, [scene.image for scene in scenes])
    features = Features(stored.global_features.numpy(), stored.patch_features.numpy())
    targets = np.zeros((SCENES, len(tags)), np.int8)
    order = [tags.index(name) for name in TAG_NAMES]
    for row, scene in enumerate(scenes):
        targets[row, [order[thing] for thing in scene.things]] = 1
    return World(features, targets, np.arange(len(tags)), Scoring())


def halves(count: int, seed: int) -> tuple[Matrix, Matrix]:
    """Two halves of the pictures at random: to adapt to, and to judge."""
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 2], order[count // 2 :]


def bank_of(names: Sequence[str], rows: Mapping[str, Any]) -> ClassBank:
    """A bank of rows on the CPU."""
    arrays = {part: rows[part].float().cpu().numpy() for part in ("global", "local")}
    bank = ClassBank.from_rows(tuple(names), arrays["global"], arrays["local"])
    return bank.with_thresholds_for("none")


def template_bank(clip: ClipModel, names: Sequence[str]) -> ClassBank:
    """Rows of "a photo of a dog."."""
    rows = plain_class_embeddings(clip, list(names), [PLAIN_TEMPLATE])
    return bank_of(names, {"global": rows, "local": rows})


def adapted_row(world: World, banks: Sequence[ClassBank], name: str) -> list[str]:
    """As they are, and adapted to more and more frames; means over seeds."""
    values, weights = [], []
    for seed, bank in enumerate(banks):
        learned, judged = halves(len(world.features), seed)
        row = [world.value(bank, judged)]
        for count in FRAMES:
            frames = world.features.part(learned[:count])
            found = adapt_bank(bank, frames, world.scoring)
            row.append(world.value(found.bank, judged))
            weight = found.weight
        values.append(row)
        weights.append(weight)
    return [name, *_cells(values), f"{np.mean(weights):.2f}"]


def paper_row(world: World, banks: Sequence[ClassBank], rounds: int) -> list[str]:
    """The discriminant's own rows, neither centred nor blended, by rounds of the paper."""
    values = []
    for seed, bank in enumerate(banks):
        learned, judged = halves(len(world.features), seed)
        row = [world.value(bank, judged)]
        for count in FRAMES:
            patches = world.features.part(learned[:count]).patches
            flat = patches.reshape(-1, patches.shape[-1]).astype(np.float64)
            chosen = choose_patches(flat, bank.local_embeddings, PatchChoice())
            kept = flat[chosen.index]
            found = fit(kept, chosen.tags, chosen.weights, bank.local_embeddings)
            if rounds == 2:
                found = refine(kept, found, bank.local_embeddings, 0.01)
            rows = found.weights / np.linalg.norm(found.weights, axis=1, keepdims=True)
            changed = replace(bank, local_embeddings=rows.astype(np.float32))
            row.append(world.value(changed, judged))
        values.append(row)
    name = f"the paper's rows, {'one round' if rounds == 1 else 'two rounds'}"
    return [name, *_cells(values), "1.00"]


def centred_row(world: World, banks: Sequence[ClassBank]) -> list[str]:
    """The mean of all tags' local rows subtracted, without any frame."""
    values = []
    for seed, bank in enumerate(banks):
        _, judged = halves(len(world.features), seed)
        rows = bank.local_embeddings - bank.local_embeddings.mean(axis=0)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        changed = replace(bank, local_embeddings=rows)
        values.append([world.value(bank, judged), world.value(changed, judged)])
    cells = _cells(values)
    return ["local rows centred, no frames", cells[0], "–", "–", cells[1], "–"]


def with_examples(world: World, bank: ClassBank, learned: Matrix, count: int) -> ClassBank:
    """The bank with every tag taught by so many of the pictures that show it."""
    changed = bank
    for tag, title in enumerate(bank.names):
        shown = world.targets[learned, tag] > 0
        pictures = world.features.part(learned[shown][:count])
        if len(pictures):
            others = world.features.part(learned[~shown][:64])
            made = examples_to_bank(title, pictures, others, bank, world.scoring)
            changed = put_tags(changed, made)
    return changed


def example_row(world: World, banks: Sequence[ClassBank], name: str) -> list[str]:
    """Every tag again from examples of its own, against the frames that do not show it."""
    values = []
    for seed, bank in enumerate(banks):
        learned, judged = halves(len(world.features), seed)
        changed = [with_examples(world, bank, learned, count) for count in EXAMPLES]
        values.append([world.value(one, judged) for one in (bank, *changed)])
    return [name, *_cells(values)]


def _cells(values: Sequence[Sequence[float]]) -> list[str]:
    mean = np.mean(values, axis=0)
    if len(values) == 1:
        return [f"{value:.1f}" for value in mean]
    spread = np.std(values, axis=0, ddof=1)
    return [f"{value:.1f} ± {one:.1f}" for value, one in zip(mean, spread, strict=True)]


def draw_tags(world: World, bank: ClassBank, target: Path) -> str:
    """Each tag a dot, average precision as it is against that with adapted rows; two panels."""
    learned, judged = halves(len(world.features), 0)
    frames = world.features.part(learned[: FRAMES[-1]])
    panels = {
        f"{FRAMES[-1]} unlabelled frames": adapt_bank(bank, frames, world.scoring).bank,
        f"{EXAMPLES[-1]} examples a tag": with_examples(world, bank, learned, EXAMPLES[-1]),
    }
    before = world.each(bank, judged)
    figure = Figure(figsize=(8, 4), layout="constrained", dpi=100)
    for axes, (name, adapted) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        after = world.each(adapted, judged)
        least = min(before.min(), after.min()) - 2
        axes.plot((least, 100), (least, 100), color="0.7", linewidth=1)
        axes.plot(before, after, ".", color="tab:blue")
        axes.set(title=name, xlabel="as they are", ylabel="adapted", aspect="equal")
        better, worse = int((after > before + 0.5).sum()), int((after < before - 0.5).sum())
        axes.text(least, 98.5, f"{better} tags gain, {worse} lose more than 0.5")
    figure.savefig(target)
    return (
        f"![average precision of each tag before and after](images/{target.name})\n\nAverage "
        "precision of each tag in percent, rows of templates, the first draw."
    )


def toy_tables(seeds: int, picture: Path) -> list[str]:
    """Both tables of the toy world, and the picture."""
    clip = load_clip("toyworld", "embedded")
    with tempfile.TemporaryDirectory() as folder:
        tags = load_dataset("toyworld", Path(folder)).tags
    names = tags.names
    world = toy_world(clip, names)
    plain = [template_bank(clip, names)] * seeds
    settings = replace(TuneSettings(), lr=assets.TUNING_RATE)
    prompts = [
        bank_of(names, tuned(tags, False, replace(settings, seed=seed), clip))
        for seed in range(seeds)
    ]
    rows = [
        adapted_row(world, plain, "templates"),
        adapted_row(world, prompts, "tuned prompts"),
        centred_row(world, plain),
        centred_row(world, prompts),
        *(paper_row(world, plain, rounds) for rounds in (1, 2)),
    ]
    rows[2][0] = f"templates, {rows[2][0]}"
    rows[3][0] = f"tuned prompts, {rows[3][0]}"
    examples = [
        example_row(world, plain, "templates"),
        example_row(world, prompts, "tuned prompts"),
    ]
    columns = ["rows", "as they are", *(f"{count} examples a tag" for count in EXAMPLES)]
    drawn = draw_tags(world, plain[0], picture)
    return [Table(list(COLUMNS), rows).markdown(), drawn, Table(columns, examples).markdown()]


def photograph_rows(model: Path, data: Path, seeds: int) -> str:
    """Templates on photographs with labels, of a small real model."""
    clip = load_clip(str(model))
    read = read_data(data, 1)
    rows = []
    for images in (read.flickr, read.coco):
        scoring = Scoring(PHOTOGRAPH_TEMPERATURE)
        world = read_world(clip, images, scoring, LEAST_POSITIVES[images.name])
        banks = [template_bank(clip, images.tags.names)] * seeds
        rows.append(adapted_row(world, banks, f"templates, {images.name}"))
    return Table(list(COLUMNS), rows).markdown()


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="model folder, for photographs")
    parser.add_argument("--data", type=Path, help="folder of pictures, for photographs")
    parser.add_argument("--seeds", type=int, default=3, help="draws and tunings [default: 3]")
    parser.add_argument("--write", action="store_true", help=f"write into {DOCUMENT.name}")
    options = parser.parse_args()
    if (options.model is None) != (options.data is None):
        raise InputError("--model and --data are for photographs: give both or none")
    with tempfile.TemporaryDirectory() as folder:
        target = PICTURE if options.write else Path(folder) / PICTURE.name
        parts = toy_tables(options.seeds, target)
    if options.model is not None:
        parts.append(photograph_rows(options.model, options.data, options.seeds))
    text = "\n\n".join(part.strip() for part in parts) + "\n"
    print(text)
    if options.write:
        page = DOCUMENT.read_text("utf-8")
        DOCUMENT.write_text(marked(page, BEGIN, END, text), "utf-8")


if __name__ == "__main__":
    main()

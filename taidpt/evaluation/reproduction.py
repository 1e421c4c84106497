"""Runs recipes: tunes, evaluates, compares with the published figure, and writes a record.

Ours is the last epoch; TaI-DPT's authors kept the best checkpoint on a part of the test set.
"""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from taidpt import __version__
from taidpt.clip.source import resolve_source
from taidpt.evaluation.comparison import MethodTable, group_means
from taidpt.evaluation.dataset_job import DatasetJob, rate_of, run_dataset_job
from taidpt.evaluation.recipes import PictureRun, Recipe, find_recipe
from taidpt.evaluation.saved_scores import ensemble_scores
from taidpt.evaluation.table import Table, json_ready
from taidpt.features.picture_store import StoreSettings
from taidpt.metrics import mean_average_precision
from taidpt.progress import Progress
from taidpt.runtime.storage.outputs import write_output
from taidpt.runtime.storage.user_folders import cache_folder
from taidpt.tuning.picture_job import PictureTuneJob, run_picture_job
from taidpt.tuning.settings import TuneSettings
from taidpt.tuning.text_job import checkpoint_path

__all__ = [
    "Reproduction",
    "ReproductionJob",
    "SeedRun",
    "evaluation_job",
    "markdown",
    "plan",
    "reproduce",
    "run_recipe",
]

# Data sets some of whose test pictures are described by train2017's captions.
_LEAKY = ("coco2014", "coco-laso-1", "coco-laso-5", "coco-48-17")


@dataclass(frozen=True)
class ReproductionJob:
    """Where and how to run recipes.

    Attributes:
        root: folder of the data sets; the toy world needs none.
        cache: folder for features and prompts, None for the user's cache.
        seeds: number of runs.
        leak_free: leave out captions of COCO's test pictures.
        split: the data set's split to evaluate on.
        device: "cpu", "cuda" or "auto".
        workers: processes that read pictures.
        model, pretrained: instead of the recipes' own, None for those.
        official_names: spell VOC's classes as its annotations do, see `load_dataset`.
    """

    root: Path | None = None
    cache: Path | None = None
    seeds: int = 3
    leak_free: bool = False
    split: str = "test"
    device: str = "auto"
    workers: int = 0
    model: str | None = None
    pretrained: str | None = None
    official_names: bool = False

    def recipe(self, name: str) -> Recipe:
        """A recipe with this job's model and weights.

        Raises:
            InputError: an unknown recipe.
        """
        recipe = find_recipe(name)
        if self.model is not None:
            return replace(
                recipe, model=self.model, pretrained=self.pretrained, text_model=self.model
            )
        return replace(recipe, pretrained=self.pretrained or recipe.pretrained)


@dataclass(frozen=True)
class SeedRun:
    """One run of a recipe.

    Attributes:
        value: mAP in percent.
        groups: mAP of each group of classes.
        tables: every evaluation with the record of its tuning, as JSON.
    """

    value: float
    groups: dict[str, float]
    tables: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Reproduction:
    """A recipe's runs.

    Attributes:
        name: the recipe's name.
        recipe: what was run.
        job: where and how.
        runs: one per seed.
    """

    name: str
    recipe: Recipe
    job: ReproductionJob
    runs: tuple[SeedRun, ...]

    @property
    def maps(self) -> tuple[float, ...]:
        """mAP of each seed, in percent."""
        return tuple(run.value for run in self.runs)

    @property
    def ours(self) -> str:
        """Mean mAP, with the standard deviation over seeds where they differ."""
        if len(set(self.maps)) == 1:
            return f"{self.maps[0]:.3f}"
        return f"{statistics.mean(self.maps):.3f} ± {statistics.stdev(self.maps):.3f}"

    def lines(self) -> Iterator[str]:
        """Lines for a terminal: our figure beside the published one."""
        seeds = ", ".join(f"{value:.3f}" for value in self.maps)
        yield f"{self.name}: ours {self.ours} ({seeds}), {_published(self.recipe)}"
        for group in self.runs[0].groups:
            values = [run.groups[group] for run in self.runs]
            yield f"  {group}: {statistics.mean(values):.3f}"
        if self.recipe.has_texts:
            yield f"texts: {_text_note(self.recipe, self.job.leak_free)}"
            yield f"of these texts {_held_out(self.recipe):.0%} were held out for thresholds"
        if self.recipe.note:
            yield f"note: {self.recipe.note}"

    def save(self, path: Path) -> None:
        """Write the whole record as JSON."""
        import torch

        record = {
            "schema": 1,
            "recipe": {"name": self.name, **asdict(self.recipe)},
            "job": {key: str(value) for key, value in asdict(self.job).items()},
            "command": sys.argv,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": {
                "taidpt": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
            "texts": _text_note(self.recipe, self.job.leak_free),
            "held_out": _held_out(self.recipe) if self.recipe.has_texts else None,
            "maps": list(self.maps),
            "runs": [asdict(run) for run in self.runs],
        }
        text = json.dumps(json_ready(record), indent=2, ensure_ascii=False)
        write_output(path, f"{text}\n".encode())


def plan(name: str, job: ReproductionJob) -> Iterator[str]:
    """The steps that `reproduce` would take, one a line.

    Raises:
        InputError: an unknown recipe.
    """
    recipe = job.recipe(name)
    where = "shipped in the package" if recipe.dataset == "toyworld" else f"below {job.root}"
    yield f"{name}: {recipe.method} on {recipe.dataset}, {_published(recipe)}"
    models = {recipe.model, recipe.text_model or recipe.model}
    weights = recipe.pretrained or "its own"
    yield f"  data set {where}; model {' and '.join(sorted(models))}, weights {weights}"
    if recipe.note:
        yield f"  note: {recipe.note}"
    if recipe.has_texts:
        yield f"  texts: {_text_note(recipe, job.leak_free)}"
    for seed in range(job.seeds):
        steps = [*_tuning_steps(recipe, seed), f"score the {job.split} pictures"]
        if recipe.method == "ensemble":
            steps.append(f"combine both at rate {recipe.rate:g}")
        yield f"  seed {seed}: {', '.join(steps)}, read {recipe.column or 'mAP'}"
    yield "  pictures without augmentation are encoded once for all seeds and recipes of a model"


def _tuning_steps(recipe: Recipe, seed: int) -> Iterator[str]:
    run = recipe.pictures
    if recipe.has_texts:
        text_method = "taidpt" if recipe.method == "ensemble" else recipe.method
        yield f"make {text_method.removeprefix('adapt-')} from the texts"
    if recipe.method.startswith(("adapt", "piaa")):
        yield "learn from the train pictures without their labels"
    if run is not None:
        size = f"{run.picture.size or 'model'}-pixel {run.picture.resize}"
        shots = f", {run.shots} shots" if run.shots else ""
        epochs = f"{run.settings.epochs} epochs at {run.settings.lr:g}"
        yield (
            f"tune {run.settings.method} on {_split(run, seed)} ({run.known:.0%} of the labels"
            f"{shots}, {size} pictures, augmentation {run.augment}, {epochs})"
        )


def reproduce(name: str, job: ReproductionJob, progress: Progress) -> Reproduction:
    """Run a recipe with every seed.

    Args:
        name: one of RECIPES.
        job: where and how.
        progress: reports long work.
    Raises:
        InputError: as `run_dataset_job` and `run_picture_job`.
    """
    recipe = job.recipe(name)
    for model in {recipe.model, recipe.text_model or recipe.model}:
        resolve_source(model, recipe.pretrained)  # before any work
    runs = (run_recipe(recipe, seed, job, progress) for seed in range(job.seeds))
    return Reproduction(name, recipe, job, tuple(runs))


def run_recipe(recipe: Recipe, seed: int, job: ReproductionJob, progress: Progress) -> SeedRun:
    """One seed of a recipe.

    Raises:
        InputError: as `run_dataset_job` and `run_picture_job`.
    """
    prompts: tuple[Path, ...] = ()
    if recipe.pictures is not None:
        prompts = (_tune_on_pictures(recipe, recipe.pictures, seed, job, progress),)
    evaluation = evaluation_job(recipe, job, seed)
    if recipe.method != "ensemble":
        found = run_dataset_job(replace(evaluation, prompts=prompts), progress)
        result = found.results[0]
        value = result.maps[recipe.column].value if recipe.column else result.best.value
        return SeedRun(value, result.groups, (found.to_json(),))
    assert recipe.pictures is not None
    image_method = recipe.pictures.settings.method
    image = replace(
        evaluation,
        methods=(image_method,),
        model=recipe.model,
        prompts=prompts,
        text_source="files",
    )
    tables = [run_dataset_job(part, progress) for part in (evaluation, image)]
    return _combine(tables, recipe.rate)


def _combine(tables: Sequence[MethodTable], rate: float) -> SeedRun:
    """TaI-DPT's scores combined with those of picture-tuned prompts."""
    text, image = (table.score_file(table.results[0]) for table in tables)
    combined = ensemble_scores(text, image, rate)
    found = mean_average_precision(combined.global_scores, combined.labels)
    groups = group_means(found, tables[0].images)
    return SeedRun(found.value, groups, tuple(table.to_json() for table in tables))


def _tune_on_pictures(
    recipe: Recipe, run: PictureRun, seed: int, job: ReproductionJob, progress: Progress
) -> Path:
    """The prompts file of one seed, shared between recipes; an unfinished run is resumed."""
    folder = (job.cache or cache_folder()) / "recipes"
    folder.mkdir(parents=True, exist_ok=True)
    tuning = PictureTuneJob(
        recipe.dataset,
        folder,
        job.root,
        _split(run, seed),
        recipe.model,
        recipe.pretrained,
        replace(run.settings, seed=seed),
        known=run.known,
        shots=run.shots,
        augment=run.augment,
        store=StoreSettings(picture=run.picture),
        official_names=job.official_names,
    )
    identity = json.dumps([__version__, asdict(tuning)], default=str, sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    output = folder / f"{recipe.dataset}-{run.settings.method}-seed{seed}-{digest}.safetensors"
    if not output.exists():
        store = replace(tuning.store, workers=job.workers)
        where = {"output": output, "store": store, "cache": job.cache, "device": job.device}
        resume = checkpoint_path(output).exists()
        run_picture_job(replace(tuning, resume=resume, **where), progress)  # type: ignore[arg-type]
    return output


def _split(run: PictureRun, seed: int) -> str:
    """The train split of a seed: official episodes are numbered from 1."""
    return f"train-{seed + 1}" if run.episodes else "train"


def evaluation_job(recipe: Recipe, job: ReproductionJob, seed: int) -> DatasetJob:
    """The evaluation of a recipe's method, or of an ensemble's text-tuned part."""
    source = recipe.texts if recipe.has_texts else "files"
    if job.leak_free and source == "coco-train2017" and recipe.dataset in _LEAKY:
        source = "coco-train2017-no-leak"
    return DatasetJob(
        dataset=recipe.dataset,
        methods=("taidpt" if recipe.method == "ensemble" else recipe.method,),
        root=job.root,
        model=(recipe.text_model or recipe.model) if recipe.method == "ensemble" else recipe.model,
        pretrained=recipe.pretrained,
        cache=job.cache,
        seed=seed,
        tuning=replace(
            recipe.tuning or TuneSettings(lr=rate_of(recipe.dataset)),
            held_out=_held_out(recipe),
        ),
        official_names=job.official_names,
        split=job.split,
        store=StoreSettings(workers=job.workers, picture=recipe.picture),
        text_source=source,
        device=job.device,
    )


def markdown(found: Sequence[Reproduction]) -> str:
    """A Markdown table of several recipes."""
    rows = []
    for item in found:
        published = "–" if item.recipe.published is None else _published(item.recipe)
        seeds = ", ".join(f"{value:.3f}" for value in item.maps)
        rows.append((f"`{item.name}`", published, item.ours, seeds))
    return Table(["recipe", "published", "ours", "seeds"], rows).markdown()


def _published(recipe: Recipe) -> str:
    if recipe.published is None:
        return "nothing published"
    return f"published {recipe.published} ({recipe.source})"


def _held_out(recipe: Recipe) -> float:
    """Share of the texts that tuning holds out for thresholds.

    Papers tune on all texts. The toy world's recipes tune as `taidpt tune` does by default.
    """
    return TuneSettings().held_out if recipe.dataset == "toyworld" else 0.0


def _text_note(recipe: Recipe, leak_free: bool) -> str:
    if recipe.texts == "narratives":
        return "OpenImages localized narratives, at most 1,000 a class"
    if recipe.texts == "files":
        return "the toy world's tuning captions"
    first = "the first caption of each picture of COCO's train2017"
    if recipe.dataset not in _LEAKY:
        return first
    if leak_free:
        return f"{first}, without those of val2014's test pictures"
    return f"{first}; about 35,500 of them describe test pictures of val2014, as in the paper"

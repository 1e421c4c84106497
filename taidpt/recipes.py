"""Published results as recipes: what was tuned on what, how it is evaluated, what was reported.

Only figures that a paper or its follow-ups printed stand here; a recipe without one has None. Ours
are of the last epoch, while TaI-DPT's authors kept the best checkpoint on a part of the test set.
"""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from taidpt import __version__
from taidpt.benchmark import BenchmarkJob, run_benchmark
from taidpt.progress import Progress
from taidpt.runtime.errors import InputError
from taidpt.runtime.files import write_atomically

__all__ = ["RECIPES", "Recipe", "Reproduction", "job_of", "plan", "reproduce"]

_PAPER = "Guo et al. 2023"
_SPARC = "SPARC, CVPR 2025, its authors' own run"
_COMC = "CoMC, ICML 2024"


@dataclass(frozen=True)
class Recipe:
    """One published result.

    Attributes:
        dataset, method, model, pretrained: as `taidpt eval --dataset` takes them.
        texts: a text source of `taidpt.benchmark`.
        column: of the table, the one to compare.
        published: mAP in percent, None where nothing is published.
        source: who published it.
    """

    dataset: str
    method: str
    model: str = "RN50-quickgelu"
    pretrained: str = "openai"
    texts: str = "coco-train2017"
    column: str = "merged"
    published: float | None = None
    source: str = ""


RECIPES: dict[str, Recipe] = {
    "voc2007-zsclip": Recipe(
        "voc2007", "zsclip", column="global", published=75.9, source="re-run by others"
    ),
    "voc2007-taidpt": Recipe("voc2007", "taidpt", published=88.3, source=_PAPER),
    "voc2007-taidpt-rn101": Recipe(
        "voc2007", "taidpt", "RN101-quickgelu", published=88.9, source=_PAPER
    ),
    "voc2007-centroids-rn101": Recipe(
        "voc2007", "centroids", "RN101-quickgelu", published=83.9, source="concept vectors alone"
    ),
    "coco2014-zsclip": Recipe(
        "coco2014", "zsclip", column="global", published=47.5, source="re-run by others"
    ),
    "coco2014-taidpt": Recipe("coco2014", "taidpt", published=65.1, source=_SPARC),
    "coco2014-taidpt-rn101": Recipe(
        "coco2014", "taidpt", "RN101-quickgelu", published=68.0, source=_PAPER
    ),
    "coco2014-linear": Recipe("coco2014", "linear", published=68.8, source=_COMC),
    "coco2014-centroids-rn101": Recipe(
        "coco2014", "centroids", "RN101-quickgelu", published=61.5, source="concept vectors alone"
    ),
    "nuswide-taidpt": Recipe(
        "nuswide", "taidpt", texts="narratives", published=46.5, source=_PAPER
    ),
    "nuswide-taidpt-rn101": Recipe(
        "nuswide", "taidpt", "RN101-quickgelu", texts="narratives", published=46.5, source=_PAPER
    ),
    "toyworld-taidpt": Recipe("toyworld", "taidpt", "toyworld", "embedded", texts="files"),
    "toyworld-linear": Recipe("toyworld", "linear", "toyworld", "embedded", texts="files"),
}


@dataclass(frozen=True)
class Reproduction:
    """A recipe's runs.

    Attributes:
        name: of the recipe.
        recipe: what was run.
        maps: mAP of each seed, in percent.
        texts: which texts, and whether those of test pictures were left out.
        runs: each seed's whole table, as JSON.
    """

    name: str
    recipe: Recipe
    maps: tuple[float, ...]
    texts: str
    runs: tuple[dict[str, Any], ...]

    def lines(self) -> Iterator[str]:
        """Ours beside the published figure."""
        spread = f" ± {statistics.stdev(self.maps):.3f}" if len(self.maps) > 1 else ""
        seeds = ", ".join(f"{value:.3f}" for value in self.maps)
        ours = f"ours {statistics.mean(self.maps):.3f}{spread} ({seeds})"
        yield f"{self.name}: {ours}, {_published(self.recipe)}"
        if self.recipe.method not in ("zsclip", "zsclip80"):
            yield f"texts: {self.texts}"

    def save(self, path: Path) -> None:
        """Write the whole record as JSON."""
        record = {
            "schema": 1,
            "recipe": {"name": self.name, **asdict(self.recipe)},
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": {"taidpt": __version__, "python": platform.python_version()},
            "texts": self.texts,
            "maps": list(self.maps),
            "runs": list(self.runs),
        }
        write_atomically(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def plan(name: str, root: Path | None, seeds: int, leak_free: bool) -> Iterator[str]:
    """What `reproduce` would do, a step a line.

    Raises:
        InputError: there is no such recipe.
    """
    recipe = _recipe(name)
    where = "shipped in the package" if recipe.dataset == "toyworld" else f"below {root}"
    yield f"{name}: {recipe.method} on {recipe.dataset}, {_published(recipe)}"
    yield f"  data set {where}; model {recipe.model}, weights {recipe.pretrained}"
    if recipe.method not in ("zsclip", "zsclip80", "clipdpt", "clipdpt80"):
        yield f"  texts: {_text_note(recipe, leak_free)}"
    for seed in range(seeds):
        yield f"  seed {seed}: make {recipe.method}, score the test pictures, read {recipe.column}"
    yield "  pictures are encoded once, for all seeds and recipes of one model"


def reproduce(
    name: str,
    job: BenchmarkJob,
    seeds: int,
    progress: Progress,
) -> Reproduction:
    """Run a recipe.

    Args:
        name: one of RECIPES.
        job: as `job_of` makes it.
        seeds: how many.
        progress: told of long work.
    Raises:
        InputError: as `run_benchmark`.
    """
    recipe = _recipe(name)
    runs, maps = [], []
    for seed in range(seeds):
        found = run_benchmark(replace(job, seed=seed), progress)
        runs.append(found.to_json())
        maps.append(found.results[0].maps[recipe.column].value)
    note = _text_note(recipe, job.text_source.endswith("no-leak"))
    return Reproduction(name, recipe, tuple(maps), note, tuple(runs))


def job_of(name: str, root: Path | None, cache: Path | None, leak_free: bool) -> BenchmarkJob:
    """A recipe as a job.

    Raises:
        InputError: there is no such recipe.
    """
    recipe = _recipe(name)
    source = recipe.texts
    if leak_free and source == "coco-train2017":
        source = "coco-train2017-no-leak"
    if recipe.method in ("zsclip", "zsclip80"):
        source = "files"
    return BenchmarkJob(
        dataset=recipe.dataset,
        methods=(recipe.method,),
        root=root,
        model=recipe.model,
        pretrained=recipe.pretrained,
        cache=cache,
        text_source=source,
    )


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise InputError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def _published(recipe: Recipe) -> str:
    if recipe.published is None:
        return "nothing published"
    return f"published {recipe.published} ({recipe.source})"


def _text_note(recipe: Recipe, leak_free: bool) -> str:
    if recipe.texts == "narratives":
        return "OpenImages localized narratives, at most 1,000 a class"
    if recipe.texts == "files":
        return "the toy world's tuning captions"
    first = "the first caption of each picture of COCO's train2017"
    if leak_free:
        return f"{first}, without those of val2014's test pictures"
    return f"{first}; about 35,500 of them describe test pictures of val2014, as in the paper"

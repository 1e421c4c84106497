"""Tuning on few tags of the toy world: alone, against background tags, and templates.

    python benchmarks/background_tags.py --counts 1 2 3 5 10 --draws 4

Each draw leaves all but some tags out. The prompts are tuned on the shipped captions and scored on
the held-out pictures. Prints the mean average precision of the drawn tags, in percent.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from taidpt.clip.model import ClipModel, load, resolve_source
from taidpt.datasets import LabelledImages, load_dataset
from taidpt.features.picture_store import StoreSettings, store_features
from taidpt.features.pictures import PictureFeatures
from taidpt.features.prompt_encoder import class_embeddings, plain_class_embeddings
from taidpt.metrics import mean_average_precision
from taidpt.progress import SilentProgress
from taidpt.scores import global_scores, local_scores, merged_scores
from taidpt.texts.tags import TagSet
from taidpt.texts.templates import ensemble_templates
from taidpt.toyworld import assets
from taidpt.tuning.settings import TuneSettings
from taidpt.tuning.text_job import TuneJob, run_job

Rows = dict[str, torch.Tensor]


def tuned(tags: TagSet, background: bool, settings: TuneSettings, clip: ClipModel) -> Rows:
    """Class rows of prompts tuned on the shipped captions."""
    job = TuneJob(
        model="toyworld",
        pretrained="embedded",
        tags=tags,
        texts=(assets.path("tuning_captions.txt"),),
        output=None,
        background=background,
        settings=settings,
    )
    prompts = run_job(job, SilentProgress())
    return class_embeddings(clip, prompts.names, prompts.contexts)


def precision(
    rows: Rows, stored: PictureFeatures, images: LabelledImages, columns: list[int]
) -> float:
    """mAP over some classes, merged scores."""
    pooled = stored.global_features.float()
    patches = stored.patch_features.float()
    merged = merged_scores(
        global_scores(pooled, rows["global"]), local_scores(patches, rows["local"], 40.0)
    )
    return mean_average_precision(merged.numpy(), images.targets[:, columns]).value


def main() -> None:
    """Parse the command line, tune, score and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 3, 5, 10])
    parser.add_argument("--draws", type=int, default=4, help="Draws of each count. [%(default)s]")
    parser.add_argument("--tags", nargs="+", help="These tags alone, in place of draws.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the draws. [%(default)s]")
    options = parser.parse_args()
    clip = load(resolve_source("toyworld", "embedded", 0))
    settings = replace(TuneSettings(), lr=assets.TUNING_RATE)
    generator = np.random.default_rng(options.seed)
    with TemporaryDirectory() as folder:
        images = load_dataset("toyworld", Path(folder))
        stored = store_features(
            clip, images, Path(folder), StoreSettings("fp32", 64), SilentProgress()
        )
        ways: dict[str, Callable[[TagSet], Rows]] = {
            "templates": lambda tags: dict.fromkeys(
                ("global", "local"), plain_class_embeddings(clip, tags.names, ensemble_templates())
            ),
            "alone": lambda tags: tuned(tags, False, settings, clip),
            "background": lambda tags: tuned(tags, True, settings, clip),
        }
        print(f"{'tags':>5}" + "".join(f"{way:>12}" for way in ways), flush=True)
        draws = [
            sorted(generator.choice(len(images.tags), count, replace=False).tolist())
            for count in options.counts
            for _ in range(options.draws)
        ]
        if options.tags:
            draws = [[images.tags.names.index(name) for name in options.tags]]
        results: dict[int, list[list[float]]] = {}
        for columns in draws:
            tags = TagSet(tuple(images.tags.tags[column] for column in columns))
            values = [
                np.nan
                if way == "alone" and len(tags) == 1
                else precision(rows(tags), stored, images, columns)
                for way, rows in ways.items()
            ]
            results.setdefault(len(tags), []).append(values)
            print(_line(len(tags), values), " ", ", ".join(tags.names), flush=True)
        print("means")
        for count, every in results.items():
            print(_line(count, np.mean(every, axis=0).tolist()))


def _line(count: int, values: list[float]) -> str:
    return f"{count:>5}" + "".join(f"{value:>12.1f}" for value in values)


if __name__ == "__main__":
    main()

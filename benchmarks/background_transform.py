"""Centred scores of few tags: alone, and against background tags.

    python benchmarks/background_transform.py --model MODEL --data DATA [--counts 3 10] [--draws 4]

Each draw leaves all but some of COCO's names out. The rows are templates. Prints the mean average
precision of plain scores, of centred ones, and of those centred with background tags, in percent.
MODEL and DATA as for photographs.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.photographs import LEAST_POSITIVES, read_data
from taidpt.clip.model import load_clip
from taidpt.export.classes.background import background_rows
from taidpt.export.classes.bank_maker import BankMaker
from taidpt.export.classes.banked_classes import BankedClasses
from taidpt.features.picture_store import store_features
from taidpt.metrics import mean_average_precision
from taidpt.scores import Scoring, bank_outputs
from taidpt.texts.tags import TagSet

WAYS = ("none", "center", "center, background")


def main() -> None:
    """Parse the command line, score and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures and captions")
    parser.add_argument("--counts", type=int, nargs="+", default=[3, 10, 20])
    parser.add_argument("--draws", type=int, default=4, help="draws of each count [default: 4]")
    parser.add_argument("--work", type=Path, help="folder to keep features in")
    options = parser.parse_args()
    clip, data = load_clip(str(options.model)), read_data(options.data, 1)
    print(f"{'pictures':14}{'tags':>5}" + "".join(f"{way:>20}" for way in WAYS))
    with TemporaryDirectory() as folder:
        for images in (data.flickr, data.coco):
            stored = store_features(clip, images, options.work or Path(folder))
            features = stored.global_features.float(), stored.patch_features.float()
            shown = (images.targets > 0).sum(axis=0) >= LEAST_POSITIVES[images.name]
            for count in options.counts:
                means = []
                for seed in range(options.draws):
                    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(shown))[:count]
                    tags = TagSet(tuple(images.tags.tags[index] for index in drawn))
                    bank = BankMaker(clip, Scoring()).make(tags, "templates")
                    centred = Scoring(transform="center")
                    nouns = background_rows(BankedClasses(bank), clip, centred)
                    against = dataclasses.replace(bank, background=nouns)
                    means.append(
                        [
                            mean_average_precision(
                                bank_outputs(one, scoring, *features)["scores"].numpy(),
                                images.targets[:, drawn],
                            ).value
                            for one, scoring in (
                                (bank, Scoring()),
                                (bank, centred),
                                (against, centred),
                            )
                        ]
                    )
                figures = "".join(f"{value:20.1f}" for value in np.mean(means, axis=0))
                print(f"{images.name:14}{count:5}{figures}", flush=True)


if __name__ == "__main__":
    main()

"""COCO's splits of classes: LaSO's 64/16 with its few-shot episodes, and 48 seen / 17 unseen.

Sources: Alfassy et al. 2019 (LaSO), whose repository's `data_for_augmentation/` holds the episodes;
Bansal et al. 2018 for 48/17, in the files published with DualCoOp (Sun et al. 2022).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from taidpt.datasets.base import LabelledImages, class_tags, find_root, require_pictures
from taidpt.datasets.coco import COCO_SOURCE, coco_folder, load_coco, read_coco
from taidpt.datasets.plain_pickle import load_plain_pickle
from taidpt.runtime.errors import InputError
from taidpt.texts.tags import TagSet

__all__ = [
    "LASO_PLACES",
    "LASO_SOURCE",
    "ZERO_SHOT_SOURCE",
    "load_coco_zero_shot",
    "load_laso",
]

LASO_SOURCE = "https://github.com/leokarlin/LaSO (data_for_augmentation/)"
ZERO_SHOT_SOURCE = "the Google Drive folder named in https://github.com/sunxm2357/DualCoOp"
LASO_PLACES = (".", "data_for_augmentation", "LaSO/data_for_augmentation")
_ZERO_SHOT_FILES = {
    "train": "instances_train2014_seen_48_17.json",
    "test": "instances_val2014_gzsi_48_17.json",
    "unseen": "instances_val2014_unseen_48_17.json",
}


def load_laso(root: str | Path, split: str = "test", shots: int = 1) -> LabelledImages:
    """Only the 16 novel classes: an official few-shot episode over train2014, or val2014.

    Args:
        root: the folder that holds COCO and data_for_augmentation/.
        split: "test", or "train-3" for the third of ten official runs; "train" is the first.
        shots: 1 or 5.
    Raises:
        InputError: a file is missing or does not match COCO.
    """
    word, _, run = split.partition("-")
    name = f"{shots}shotRun{run or 1}ClassIdxDict.pkl"
    path = find_root(root, LASO_PLACES, name, LASO_SOURCE) / name
    episode = load_plain_pickle(path, LASO_SOURCE)
    if not isinstance(episode, dict) or not episode:
        raise InputError(
            f"{path}: expected classes and their pictures, got {type(episode).__name__}"
        )
    novel, classes = sorted(episode), len(class_tags("coco2014"))
    if not set(novel) <= set(range(classes)):
        outside = next(index for index in novel if index not in range(classes))
        raise InputError(f"{path}: class {outside} is not one of COCO's {classes}")
    images = load_coco(root, "train2014" if word == "train" else "val2014").only(novel)
    if word != "train":
        return replace(images, name=f"coco laso {shots}-shot test")
    # The official numbers are positions among train2014's pictures in the file's order.
    positions = sorted({row for rows in episode.values() for row in rows})
    if positions and positions[-1] >= len(images):
        raise InputError(f"{path}: names picture {positions[-1]}, but train2014 has {len(images)}")
    return replace(images.subset(positions), name=f"coco laso {shots}-shot run {run or 1}")


def load_coco_zero_shot(root: str | Path, split: str = "test") -> LabelledImages:
    """COCO with 48 seen and 17 unseen classes; groups "seen" and "unseen".

    Only the classes of the official files occur, in COCO's order.

    Args:
        root: folder of COCO, with the official files among its annotations.
        split: "train" (seen classes), "test" (seen and unseen) or "unseen".
    Raises:
        InputError: a file is missing or does not match COCO.
    """
    if split not in _ZERO_SHOT_FILES:
        raise InputError(f"48/17 has the splits {', '.join(_ZERO_SHOT_FILES)}, got {split!r}")
    name = _ZERO_SHOT_FILES[split]
    try:
        folder = coco_folder(root, name)
    except InputError:
        raise InputError(
            f"annotations/{name} not found; it comes from {ZERO_SHOT_SOURCE}"
        ) from None
    seen, unseen = _zero_shot_classes(folder / "annotations" / "cls_ids.pickle")
    used = sorted({"train": seen, "test": seen | unseen, "unseen": unseen}[split])
    coco = read_coco(folder / "annotations" / name)
    columns = _zero_shot_columns(coco, used, folder / "annotations" / name)
    rows = {image: row for row, image in enumerate(coco.imgToAnns)}
    targets = np.full((len(rows), len(used)), -1, np.int8)
    for annotation in coco.anns.values():
        targets[rows[annotation["image_id"]], columns[annotation["category_id"]]] = 1
    year = "train2014" if split == "train" else "val2014"
    paths = tuple(folder / year / coco.imgs[image]["file_name"] for image in rows)
    require_pictures(paths, COCO_SOURCE)
    tags = class_tags("coco2014").tags
    groups = {
        group: tuple(column for column, index in enumerate(used) if index in members)
        for group, members in (("seen", seen), ("unseen", unseen))
    }
    chosen = TagSet(tuple(tags[index] for index in used))
    return LabelledImages(
        f"coco 48/17 {split}", chosen, tuple(map(str, rows)), paths, targets, groups
    )


def _zero_shot_classes(path: Path) -> tuple[set[int], set[int]]:
    """The official seen and unseen classes as indices into COCO's 80."""
    split = load_plain_pickle(path, ZERO_SHOT_SOURCE)
    if not isinstance(split, dict) or not {"train", "test"} <= set(split):
        raise InputError(f"{path}: expected the classes under 'train' and 'test'")
    seen, unseen = ({int(index) for index in split[key]} for key in ("train", "test"))
    if seen & unseen or not seen | unseen <= set(range(80)):
        raise InputError(f"{path}: seen and unseen classes overlap or are not COCO's")
    return seen, unseen


def _zero_shot_columns(coco: Any, used: list[int], path: Path) -> dict[int, int]:
    """Category id → column; the file's categories in order are the split's classes in order."""
    categories = sorted(coco.cats)
    if len(categories) != len(used):
        raise InputError(f"{path}: {len(categories)} classes, cls_ids.pickle has {len(used)}")
    names = class_tags("coco2014").names
    for category, index in zip(categories, used, strict=True):
        name = coco.cats[category].get("name", names[index])
        if name != names[index]:
            raise InputError(f"{path}: class {name!r} at the place of {names[index]!r}")
    return {category: column for column, category in enumerate(categories)}

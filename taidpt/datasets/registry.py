"""The data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from taidpt.datasets.base import LabelledImages
from taidpt.datasets.coco import load_coco
from taidpt.datasets.longtail import load_coco_mlt, load_voc_mlt
from taidpt.datasets.nuswide import load_nuswide
from taidpt.datasets.splits import load_coco_zero_shot, load_laso
from taidpt.datasets.toyworld import load_toyworld
from taidpt.datasets.voc import load_voc
from taidpt.runtime.errors import InputError
from taidpt.texts.tags import Tag, TagSet

__all__ = ["DATASET_NAMES", "SPLITS", "load_dataset"]

SPLITS = ("test", "train")
Root = str | Path


# name → reader of one split
_LOADERS: dict[str, Callable[[Root, str], LabelledImages]] = {
    "voc2007": lambda root, split: load_voc(root, {"train": "trainval"}.get(split, split)),
    "coco2014": lambda root, split: load_coco(root, {"test": "val2014"}.get(split, "train2014")),
    "nuswide": load_nuswide,
    "nuswide-labelled": lambda root, split: load_nuswide(root, split, labelled_only=True),
    "voc-mlt": load_voc_mlt,
    "coco-mlt": load_coco_mlt,
    "coco-48-17": load_coco_zero_shot,
    "coco-laso-1": lambda root, split: load_laso(root, split, shots=1),
    "coco-laso-5": lambda root, split: load_laso(root, split, shots=5),
    "toyworld": load_toyworld,
}

DATASET_NAMES = tuple(_LOADERS)
# Our spelling of VOC's classes → the one of published runs.
_OFFICIAL_NAMES = {
    "dining table": "diningtable",
    "motorbike": "motor bike",
    "tv monitor": "tvmonitor",
}
_EPISODES = tuple(f"train-{run}" for run in range(1, 11))
# Only the toy world has pictures for choosing settings that serve neither tuning nor testing.
_FURTHER_SPLITS = {
    "toyworld": ("val",),
    "coco-48-17": ("unseen",),
    "coco-laso-1": _EPISODES,
    "coco-laso-5": _EPISODES,
}


def load_dataset(
    name: str, root: str | Path, split: str = "test", official_names: bool = False
) -> LabelledImages:
    """The pictures of a data set.

    Args:
        name: one of DATASET_NAMES.
        root: its folder, see `taidpt research datasets`.
        split: "test", or "train" for methods that are tuned on pictures; the toy world has "val",
            48/17 has "unseen", and LaSO's official episodes are "train-1" to "train-10".
        official_names: spell VOC's classes as published runs do ("diningtable", "tvmonitor",
            "motor bike"); ours become synonyms. Other data sets have one spelling.
    Raises:
        InputError: an unknown data set or split, or missing or damaged files.
    """
    if name not in _LOADERS:
        raise InputError(f"no data set {name!r}; there are {', '.join(_LOADERS)}")
    splits = (*SPLITS, *_FURTHER_SPLITS.get(name, ()))
    if split not in splits:
        raise InputError(f"{name} has no split {split!r}; there are {', '.join(splits)}")
    images = _LOADERS[name](root, split)
    if official_names and name.startswith("voc"):
        return replace(images, tags=_with_official_names(images.tags))
    return images


def _with_official_names(tags: TagSet) -> TagSet:
    spelt = []
    for tag in tags:
        name = _OFFICIAL_NAMES.get(tag.name, tag.name)
        synonyms = tuple(word for word in tag.words if word != name)
        spelt.append(Tag(name, synonyms))
    return TagSet(tuple(spelt), tags.source)

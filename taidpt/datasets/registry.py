"""The data sets by the name that a command takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from taidpt.datasets.base import LabelledImages
from taidpt.datasets.coco import load_coco
from taidpt.datasets.longtail import load_coco_mlt, load_voc_mlt
from taidpt.datasets.nuswide import load_nuswide
from taidpt.datasets.splits import load_coco_zero_shot
from taidpt.datasets.toyworld import load_toyworld
from taidpt.datasets.voc import load_voc
from taidpt.runtime.errors import InputError

__all__ = ["DATASET_NAMES", "load_dataset"]

# name → what reads its test pictures
_LOADERS: dict[str, Callable[[str | Path], LabelledImages]] = {
    "voc2007": load_voc,
    "coco2014": load_coco,
    "nuswide": load_nuswide,
    "nuswide-labelled": lambda root: load_nuswide(root, labelled_only=True),
    "voc-mlt": load_voc_mlt,
    "coco-mlt": load_coco_mlt,
    "coco-48-17": load_coco_zero_shot,
    "toyworld": load_toyworld,
}

DATASET_NAMES = tuple(_LOADERS)


def load_dataset(name: str, root: str | Path) -> LabelledImages:
    """The test pictures of a data set.

    Args:
        name: one of DATASET_NAMES.
        root: the folder that holds it, see `taidpt datasets check`.
    Raises:
        InputError: there is no such data set, or its files are missing or damaged.
    """
    if name not in _LOADERS:
        raise InputError(f"no data set {name!r}; there are {', '.join(_LOADERS)}")
    return _LOADERS[name](root)

"""VOC-MLT and COCO-MLT: long-tailed training sets with head, medium and tail classes.

Source: Wu et al. 2020 (ECCV), whose repository's `appendix/` holds the lists. VOC-MLT trains on
VOC2012 and is tested on VOC2007's test; COCO-MLT trains on train2017 and is tested on val2017.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from taidpt.datasets.base import LabelledImages, find_file, find_root, read_lines
from taidpt.datasets.coco import load_coco
from taidpt.datasets.plain_pickle import load_plain_pickle
from taidpt.datasets.voc import load_voc
from taidpt.runtime.errors import InputError

__all__ = ["MLT_PLACES", "MLT_SOURCE", "load_coco_mlt", "load_voc_mlt"]

MLT_SOURCE = "https://github.com/wutong16/DistributionBalancedLoss (appendix/)"
MLT_PLACES = ("appendix", ".", "DistributionBalancedLoss/appendix")
# official key → ours
_GROUPS = {"head": "head", "middle": "medium", "tail": "tail"}


def load_voc_mlt(root: str | Path, split: str = "test") -> LabelledImages:
    """VOC-MLT; groups "head", "medium" and "tail".

    Args:
        root: folder of VOCdevkit/ and appendix/.
        split: "test" or "train".
    """
    lists = _lists(root, "VOCdevkit/longtail2012")
    if split == "train":
        ids = read_lines(find_file(lists, ("img_id.txt", "img_id.pkl"), MLT_SOURCE))
        images = load_voc(root, "long-tailed", 2012, ids)
    else:
        images = load_voc(root, split, 2007)
    return replace(images, name=f"voc-mlt {split}", groups=_groups(lists, len(images.classes)))


def load_coco_mlt(root: str | Path, split: str = "test") -> LabelledImages:
    """COCO-MLT; groups "head", "medium" and "tail".

    Args:
        root: folder of COCO's 2017 pictures and of appendix/.
        split: "test" or "train".
    """
    lists = _lists(root, "coco/longtail2017")
    images = load_coco(root, "train2017" if split == "train" else "val2017")
    if split == "train":
        # Despite its name the official img_id.pkl is a text file.
        wanted = read_lines(find_file(lists, ("img_id.txt", "img_id.pkl"), MLT_SOURCE))
        rows = {name: row for row, name in enumerate(images.ids)}
        unknown = [name for name in wanted if name not in rows]
        if unknown:
            raise InputError(f"{lists}: {len(unknown)} ids are not COCO's, the first {unknown[0]}")
        images = images.subset([rows[name] for name in wanted])
    return replace(images, name=f"coco-mlt {split}", groups=_groups(lists, len(images.classes)))


def _lists(root: str | Path, place: str) -> Path:
    return find_root(root, MLT_PLACES, f"{place}/class_split.pkl", MLT_SOURCE) / place


def _groups(lists: Path, classes: int) -> dict[str, tuple[int, ...]]:
    path = lists / "class_split.pkl"
    split = load_plain_pickle(path, MLT_SOURCE)
    if not isinstance(split, dict) or set(split) != set(_GROUPS):
        raise InputError(f"{path}: expected the groups {', '.join(_GROUPS)}")
    groups = {ours: tuple(sorted(map(int, split[key]))) for key, ours in _GROUPS.items()}
    if sorted(index for group in groups.values() for index in group) != list(range(classes)):
        raise InputError(f"{path}: expected each of {classes} classes in exactly one group")
    return groups

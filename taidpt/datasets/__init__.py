"""Data sets in their official folder layouts, read into pictures, targets and groups of classes.

`load_dataset(name, root)` reads one; `check_root(root)` lists what is there and what is missing.
"""

from __future__ import annotations

from taidpt.datasets.base import LabelledImages, class_tags
from taidpt.datasets.check import check_root
from taidpt.datasets.registry import DATASET_NAMES, load_dataset

__all__ = ["DATASET_NAMES", "LabelledImages", "check_root", "class_tags", "load_dataset"]

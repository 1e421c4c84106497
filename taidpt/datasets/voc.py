"""PASCAL VOC: VOCdevkit/VOC2007/{Annotations, ImageSets/Main, JPEGImages}.

Source: Everingham et al. 2010. A class whose objects in a picture are all "difficult" has target 0,
as in the official `ImageSets/Main/<class>_<split>.txt`.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taidpt.datasets.base import (
    LabelledImages,
    class_tags,
    find_root,
    read_lines,
    require_pictures,
)
from taidpt.runtime.errors import InputError

__all__ = ["VOC_SOURCE", "load_voc", "voc_places"]

VOC_SOURCE = "http://host.robots.ox.ac.uk/pascal/VOC/"


def voc_places(year: int) -> tuple[str, ...]:
    """Folders below a root where VOC of a year may be."""
    return (f"VOCdevkit/VOC{year}", f"VOC{year}", ".")


def load_voc(
    root: str | Path, split: str = "test", year: int = 2007, ids: list[str] | None = None
) -> LabelledImages:
    """Read a split of VOC.

    Args:
        root: the folder of the data sets, of VOCdevkit, or of the year itself.
        split: a file in ImageSets/Main: "test", "trainval", "train" or "val".
        year: 2007, or 2012 for the long-tailed training set.
        ids: pictures to read instead of the split's list.
    Raises:
        InputError: files are missing or damaged, or an annotation names an unknown class.
    """
    folder = find_root(root, voc_places(year), "ImageSets/Main", VOC_SOURCE)
    if ids is None:
        ids = read_lines(folder / "ImageSets" / "Main" / f"{split}.txt")
    tags = class_tags("voc2007")
    columns = {name.replace(" ", ""): index for index, name in enumerate(tags.names)}
    paths = tuple(folder / "JPEGImages" / f"{name}.jpg" for name in ids)
    targets = np.stack([_targets(folder / "Annotations" / f"{name}.xml", columns) for name in ids])
    require_pictures(paths, VOC_SOURCE)
    return LabelledImages(f"voc{year} {split}", tags, tuple(ids), paths, targets)


def _targets(path: Path, columns: dict[str, int]) -> npt.NDArray[np.int8]:
    """Targets of one picture, [C]."""
    targets = np.full(len(columns), -1, np.int8)
    for item in _parse(path).iter("object"):
        name = (item.findtext("name") or "").strip()
        if name not in columns:
            raise InputError(
                f"{path}: an object of the unknown class {name!r}; VOC has {', '.join(columns)}"
            )
        difficult = (item.findtext("difficult") or "0").strip() == "1"
        targets[columns[name]] = max(targets[columns[name]], 0 if difficult else 1)
    return targets


def _parse(path: Path) -> ET.Element:
    try:
        return ET.parse(path).getroot()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; it comes from {VOC_SOURCE}") from None
    except ET.ParseError as error:
        raise InputError(f"{path}: not valid XML ({error})") from None

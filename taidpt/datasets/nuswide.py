"""NUS-WIDE: ImageList/, Groundtruth/TrainTestLabels/, ConceptsList/Concepts81.txt and Flickr/.

Source: Chua et al. 2009. The lists name pictures with a backslash (`actor\\0001_2124494179.jpg`).
"""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import numpy as np
import numpy.typing as npt

from taidpt.datasets.base import (
    LabelledImages,
    class_tags,
    find_file,
    find_root,
    read_lines,
    require_pictures,
)
from taidpt.runtime.errors import InputError
from taidpt.texts.tags import TagSet

__all__ = ["NUS_PLACES", "NUS_SOURCE", "load_nuswide"]

NUS_SOURCE = "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html"
NUS_PLACES = (".", "NUS-WIDE", "nuswide", "NUSWIDE", "nus_wide")
_SPLITS = {"test": "Test", "train": "Train"}


def load_nuswide(
    root: str | Path, split: str = "test", labelled_only: bool = False
) -> LabelledImages:
    """Read a split of NUS-WIDE with its 81 concepts.

    Args:
        root: the folder of the data sets, or of NUS-WIDE itself.
        split: "test" (107,859 pictures) or "train" (161,789).
        labelled_only: leave out pictures without any concept (83,898 of test remain).
    Raises:
        InputError: files are missing or of different lengths, contain anything but 0 and 1, or
            name an unknown concept.
    """
    if split not in _SPLITS:
        raise InputError(f"NUS-WIDE has the splits {' and '.join(_SPLITS)}, got {split!r}")
    folder = find_root(root, NUS_PLACES, "Groundtruth/TrainTestLabels", NUS_SOURCE)
    tags = _concepts(folder)
    listing = find_file(folder, _listings(_SPLITS[split]), NUS_SOURCE)
    lines = read_lines(listing)
    truth = folder / "Groundtruth" / "TrainTestLabels"
    shown = np.stack(
        [
            _column(truth / f"Labels_{name}_{_SPLITS[split]}.txt", len(lines), listing)
            for name in tags.names
        ],
        axis=1,
    )
    paths = tuple(folder / "Flickr" / PureWindowsPath(line) for line in lines)
    targets = np.where(shown, 1, -1).astype(np.int8)
    images = LabelledImages(f"nuswide {split}", tags, tuple(lines), paths, targets)
    if labelled_only:
        images = images.subset(np.flatnonzero(shown.any(axis=1)))
    require_pictures(images.paths, NUS_SOURCE)
    return images


def _listings(split: str) -> tuple[str, ...]:
    return tuple(f"ImageList/{split}{middle}list.txt" for middle in ("Image", "image"))


def _concepts(folder: Path) -> TagSet:
    """The official list, which gives the order; each concept must be one of ours."""
    path = find_file(folder, ("ConceptsList/Concepts81.txt", "Concepts81.txt"), NUS_SOURCE)
    names = tuple(read_lines(path))
    known = {tag.name: tag for tag in class_tags("nuswide")}
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) != len(known):
        problem = f"unknown concepts {', '.join(unknown[:5])}" if unknown else f"{len(names)} lines"
        raise InputError(f"{path}: {problem}; expected the {len(known)} concepts of NUS-WIDE")
    return TagSet(tuple(known[name] for name in names), str(path))


def _column(path: Path, length: int, listing: Path) -> npt.NDArray[np.bool_]:
    """Which pictures show one concept, [N]."""
    lines = read_lines(path)
    if len(lines) != length:
        raise InputError(f"{path}: {len(lines)} lines, but {listing} names {length} pictures")
    wrong = next((number for number, line in enumerate(lines, 1) if line not in ("0", "1")), None)
    if wrong is not None:
        raise InputError(f"{path}, line {wrong}: expected 0 or 1, got {lines[wrong - 1]!r}")
    return np.array([line == "1" for line in lines])

"""Lists what a root holds of each data set, what is missing, and where each file comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.datasets.coco import COCO_PLACES, COCO_SOURCE
from taidpt.datasets.longtail import MLT_PLACES, MLT_SOURCE
from taidpt.datasets.nuswide import NUS_PLACES, NUS_SOURCE
from taidpt.datasets.openimages import NARRATIVES_PLACES, NARRATIVES_SOURCE
from taidpt.datasets.splits import LASO_PLACES, LASO_SOURCE, ZERO_SHOT_SOURCE
from taidpt.datasets.voc import VOC_SOURCE, voc_places
from taidpt.runtime.errors import InputError

__all__ = ["CheckedDataset", "check_root"]


@dataclass(frozen=True)
class _Wanted:
    """A data set's files.

    Attributes:
        places: folders below the root where it may be.
        files: patterns below that folder → how many files match in the official release.
        source: where to get them.
    """

    places: tuple[str, ...]
    files: dict[str, int]
    source: str


_WANTED: dict[str, _Wanted] = {
    "VOC2007": _Wanted(
        voc_places(2007),
        {
            "ImageSets/Main/test.txt": 1,
            "ImageSets/Main/trainval.txt": 1,
            "Annotations/*.xml": 9963,
            "JPEGImages/*.jpg": 9963,
        },
        VOC_SOURCE,
    ),
    "VOC2012 (VOC-MLT's training pictures)": _Wanted(
        voc_places(2012)[:2],
        {"Annotations/*.xml": 17125, "JPEGImages/*.jpg": 17125},
        VOC_SOURCE,
    ),
    "COCO 2014": _Wanted(
        COCO_PLACES,
        {
            "annotations/instances_val2014.json": 1,
            "annotations/instances_train2014.json": 1,
            "annotations/captions_train2014.json": 1,
            "val2014/*.jpg": 40504,
            "train2014/*.jpg": 82783,
        },
        COCO_SOURCE,
    ),
    "COCO 2017": _Wanted(
        COCO_PLACES,
        {
            "annotations/captions_train2017.json": 1,
            "annotations/instances_val2017.json": 1,
            "annotations/instances_train2017.json": 1,
            "val2017/*.jpg": 5000,
            "train2017/*.jpg": 118287,
        },
        COCO_SOURCE,
    ),
    "NUS-WIDE": _Wanted(
        NUS_PLACES,
        {
            "ConceptsList/Concepts81.txt": 1,
            "ImageList/Test[Ii]magelist.txt": 1,
            "ImageList/Train[Ii]magelist.txt": 1,
            "Groundtruth/TrainTestLabels/Labels_*_Test.txt": 81,
            "Groundtruth/TrainTestLabels/Labels_*_Train.txt": 81,
            "Flickr/*/*.jpg": 269648,
        },
        NUS_SOURCE,
    ),
    "OpenImages localized narratives": _Wanted(
        NARRATIVES_PLACES, {"*localized_narratives*.jsonl*": 1}, NARRATIVES_SOURCE
    ),
    "VOC-MLT lists": _Wanted(
        MLT_PLACES,
        {
            "VOCdevkit/longtail2012/class_split.pkl": 1,
            "VOCdevkit/longtail2012/img_id.txt": 1,
        },
        MLT_SOURCE,
    ),
    "COCO-MLT lists": _Wanted(
        MLT_PLACES,
        {"coco/longtail2017/class_split.pkl": 1, "coco/longtail2017/img_id.*": 1},
        MLT_SOURCE,
    ),
    "LaSO episodes": _Wanted(
        LASO_PLACES, {"1shotRun*ClassIdxDict.pkl": 10, "5shotRun*ClassIdxDict.pkl": 10}, LASO_SOURCE
    ),
    "COCO 48/17": _Wanted(
        COCO_PLACES,
        {
            "annotations/cls_ids.pickle": 1,
            "annotations/instances_train2014_seen_48_17.json": 1,
            "annotations/instances_val2014_gzsi_48_17.json": 1,
            "annotations/instances_val2014_unseen_48_17.json": 1,
        },
        ZERO_SHOT_SOURCE,
    ),
}


@dataclass(frozen=True)
class CheckedDataset:
    """Which files of one data set exist.

    Attributes:
        name: the data set.
        folder: where it was found, or the first folder searched.
        found: pattern → number of matching files.
        expected: pattern → number of files in the official release.
        source: where to get them.
    """

    name: str
    folder: Path
    found: dict[str, int]
    expected: dict[str, int]
    source: str

    @property
    def complete(self) -> bool:
        """Whether every pattern matches at least the official number of files."""
        return all(self.found[pattern] >= count for pattern, count in self.expected.items())

    @property
    def state(self) -> str:
        """ "complete", "in part" or "missing"."""
        if self.complete:
            return "complete"
        return "in part" if any(self.found.values()) else "missing"

    def state_of(self, pattern: str) -> str:
        """The same of the files of one pattern, with "there" for all of them."""
        found = self.found[pattern]
        if found >= self.expected[pattern]:
            return "there"
        return "in part" if found else "missing"

    def lines(self) -> Iterator[str]:
        """Lines for a terminal."""
        where = f" in {self.folder}" if self.state != "missing" else ""
        yield f"{self.name}: {self.state}{where}"
        for pattern, count in self.expected.items():
            number = f" ({self.found[pattern]:,} of {count:,})" if count > 1 else ""
            yield f"  {self.state_of(pattern):<7}  {pattern}{number}"
        if not self.complete:
            yield f"  from {self.source}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        files = {
            pattern: {
                "found": self.found[pattern],
                "expected": count,
                "state": self.state_of(pattern),
            }
            for pattern, count in self.expected.items()
        }
        return {
            "name": self.name,
            "state": self.state,
            "folder": str(self.folder),
            "files": files,
            "source": self.source,
        }


def check_root(root: str | Path) -> tuple[CheckedDataset, ...]:
    """Look for every data set below a folder.

    Raises:
        InputError: the folder does not exist.
    """
    base = Path(root)
    if not base.is_dir():
        raise InputError(f"{base}: there is no such folder; give the data sets' root")
    return tuple(_check(base, name, wanted) for name, wanted in _WANTED.items())


def _check(base: Path, name: str, wanted: _Wanted) -> CheckedDataset:
    """Count files in the folder that holds the most kinds of them."""
    counts = [
        (base / place, {pattern: _count(base / place, pattern) for pattern in wanted.files})
        for place in wanted.places
    ]
    folder, found = max(counts, key=lambda item: sum(map(bool, item[1].values())))
    return CheckedDataset(name, folder, found, wanted.files, wanted.source)


def _count(folder: Path, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern)) if folder.is_dir() else 0

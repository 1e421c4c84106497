"""The form of every data set in memory, and how its files are found and opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.texts.tags import TagSet

__all__ = [
    "CLASS_FILES",
    "LabelledImages",
    "class_tags",
    "find_file",
    "find_root",
    "read_lines",
    "require_pictures",
]

CLASS_FILES = {"voc2007": "voc2007.yaml", "coco2014": "coco2014.yaml", "nuswide": "nuswide.yaml"}


@dataclass(frozen=True)
class LabelledImages:
    """Pictures and the classes that they show.

    Attributes:
        name: of the data set and split, such as "voc2007 test".
        tags: the C classes as prompts spell them, with our synonyms.
        ids: the official name of each picture, N of them.
        paths: the file of each picture.
        targets: 1 shown, −1 not shown, 0 difficult or unknown; int8 [N, C].
        groups: named groups of classes as indices, such as "head" or "unseen".
    """

    name: str
    tags: TagSet
    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    targets: npt.NDArray[np.int8]
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = (len(self.paths), len(self.tags))
        if self.targets.shape != expected or len(self.ids) != len(self.paths):
            raise InputError(
                f"{self.name}: {len(self.ids)} ids, {len(self.paths)} pictures and targets "
                f"{self.targets.shape} do not fit {len(self.tags)} classes"
            )

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the C classes."""
        return self.tags.names

    def subset(self, rows: Sequence[int] | npt.NDArray[Any]) -> LabelledImages:
        """The pictures at these positions, in this order."""
        positions = [int(row) for row in rows]
        return replace(
            self,
            ids=tuple(self.ids[row] for row in positions),
            paths=tuple(self.paths[row] for row in positions),
            targets=self.targets[positions],
        )

    def only(self, columns: Sequence[int]) -> LabelledImages:
        """The same pictures with these classes alone, without groups."""
        tags = TagSet(tuple(self.tags.tags[column] for column in columns), self.tags.source)
        return replace(self, tags=tags, targets=self.targets[:, list(columns)], groups={})


def class_tags(name: str) -> TagSet:
    """The classes of "voc2007", "coco2014" or "nuswide" in official order, with our synonyms."""
    if name not in CLASS_FILES:
        raise InputError(f"no class list {name!r}; there are {', '.join(CLASS_FILES)}")
    with resources.as_file(resources.files("taidpt") / "data" / CLASS_FILES[name]) as path:
        return TagSet.load(path)


def find_root(root: str | Path, places: Iterable[str], marker: str, source: str) -> Path:
    """The first folder below a root that contains a marker file or folder.

    Args:
        root: the user's folder.
        places: folders below it to look in, "." for itself.
        marker: path below such a folder.
        source: where the data set comes from.
    Raises:
        InputError: no folder contains it.
    """
    base = Path(root)
    if not base.is_dir():
        raise InputError(f"{base}: there is no such folder; give the data sets' root")
    folders = [base / place for place in places]
    for folder in folders:
        if (folder / marker).exists():
            return folder
    tried = ", ".join(str(folder / marker) for folder in folders)
    raise InputError(f"{marker} not found (looked for {tried}); it comes from {source}")


def find_file(folder: Path, names: Iterable[str], source: str) -> Path:
    """The first of these files that exists.

    Raises:
        InputError: none exists.
    """
    paths = [folder / name for name in names]
    for path in paths:
        if path.is_file():
            return path
    tried = " or ".join(map(str, paths))
    raise InputError(f"{tried} is missing; it comes from {source}")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped, without blank ones.

    Raises:
        InputError: it is missing, not UTF-8, or empty.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} is missing: see `taidpt research datasets`") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    if not lines:
        raise InputError(f"{path}: is empty")
    return lines


def require_pictures(paths: Sequence[Path], source: str) -> None:
    """Check that all pictures exist, by listing each folder once.

    Raises:
        InputError: some are missing; names their number and the first.
    """
    folders: dict[Path, set[str]] = {}
    missing = []
    for path in paths:
        if path.parent not in folders:
            entries = path.parent.iterdir() if path.parent.is_dir() else ()
            folders[path.parent] = {entry.name for entry in entries}
        if path.name not in folders[path.parent]:
            missing.append(path)
    if missing:
        raise InputError(
            f"{len(missing)} of {len(paths)} pictures are missing, the first {missing[0]}; "
            f"they come from {source}"
        )

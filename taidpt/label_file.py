"""Labels of a few frames: a CSV with the columns frame, tag, present."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError

__all__ = ["LabelFile"]

Targets = npt.NDArray[np.int8]

_COLUMNS = ("frame", "tag", "present")
_SIGNS = {"1": 1, "0": -1, "-1": -1}


@dataclass(frozen=True)
class LabelFile:
    """Labels whose tags are known and whose frames are still to come.

    Attributes:
        path: the file. names: C tags.
        labels: by frame, as the file calls it, and tag: 1 or −1, and its line in the file.
    """

    path: str
    names: tuple[str, ...]
    labels: dict[tuple[str, int], tuple[int, int]]

    @classmethod
    def read(cls, path: str | Path, names: tuple[str, ...]) -> LabelFile:
        """Read a CSV with the columns frame, tag, present, separated by commas or semicolons.

        Args:
            path: a CSV file; present is 1 or 0 (or −1). The same line twice counts once.
            names: the tags.
        Raises:
            InputError: it cannot be read or holds no label, names an unknown tag, or says both 1
                and 0.
        """
        columns = {name: index for index, name in enumerate(names)}
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for line, row in _rows(path):
            where = f"{path}, line {line}"
            frame, present = (row["frame"] or "").strip(), (row["present"] or "").strip()
            key = frame, _find(columns, row["tag"], "tag", where)
            if present not in _SIGNS:
                raise InputError(f"{where}: present should be 1 or 0, got {present!r}")
            sign = _SIGNS[present]
            if key in found and found[key][0] != sign:
                raise InputError(
                    f"{where}: {frame} is said to have {row['tag']!r} and not to; leave one line"
                )
            found[key] = sign, line
        if not found:
            raise InputError(f"{path}: holds no label; give lines such as 0001.jpg,{names[0]},1")
        return cls(str(path), names, found)

    def refuse_numbers(self, every: int, most: int) -> None:
        """Raise InputError where a label's frame is not the number of one of a video's frames.

        Args:
            every: each N-th frame is taken. most: and this many at most.
        """
        for (frame, _), (_, line) in self.labels.items():
            if not frame.isdecimal() or int(frame) % every or int(frame) >= every * most:
                raise InputError(
                    f"{self.path}, line {line}: no frame {frame!r}; a video's frames are called "
                    f"by their numbers, here 0, {every}, {2 * every}, … below {every * most}"
                )

    def of(self, frames: Sequence[str]) -> Targets:
        """1, −1, or 0 where nothing is said, int8 [N, C].

        Args:
            frames: how the file may call each of N frames.
        Raises:
            InputError: the file names an unknown frame, or one that several frames are called.
        """
        rows, counts = {name: index for index, name in enumerate(frames)}, Counter(frames)
        targets = np.zeros((len(frames), len(self.names)), np.int8)
        for (frame, tag), (sign, line) in self.labels.items():
            where = f"{self.path}, line {line}"
            row = _find(rows, frame, "frame", where)
            if counts[frame] > 1:
                raise InputError(
                    f"{where}: there are several frames {frame!r}; give one folder or video at a "
                    "time, or rename the pictures"
                )
            targets[row, tag] = sign
        return targets


def _rows(path: str | Path) -> list[tuple[int, dict[str, str | None]]]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the labels: {error}") from None
    reader = csv.DictReader(lines, delimiter=";" if lines and ";" in lines[0] else ",")
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; its first line should be {','.join(_COLUMNS)}"
        )
    return [(reader.line_num, row) for row in reader]


def _find(index: dict[str, int], key: str | None, what: str, where: str) -> int:
    found = index.get((key or "").strip())
    if found is None:
        some = ", ".join(list(index)[:4])
        raise InputError(f"{where}: no {what} {key!r}; they are called like {some}")
    return found

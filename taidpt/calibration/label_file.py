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
        signs: 1 or −1 by frame, as the file calls it, and tag. lines: where each was said last.
    """

    path: str
    names: tuple[str, ...]
    signs: dict[tuple[str, int], int]
    lines: dict[tuple[str, int], int]

    @classmethod
    def read(cls, path: str | Path, names: tuple[str, ...]) -> LabelFile:
        """Read a CSV with the columns frame, tag, present; commas or semicolons part them.

        Args:
            path: a CSV file; present is 1 or 0 (or −1). The same line twice counts once.
            names: the tags.
        Raises:
            InputError: it cannot be read or holds no label, names a tag that there is not, or
                says both 1 and 0.
        """
        columns = {name: index for index, name in enumerate(names)}
        found = cls(str(path), names, {}, {})
        for line, row in _rows(path):
            where = f"{path}, line {line}"
            frame = (row["frame"] or "").strip()
            key = frame, _find(columns, row["tag"], "tag", where)
            sign = _sign(row, where)
            if found.signs.get(key) == -sign:
                raise InputError(
                    f"{where}: {frame} is said to have {row['tag']!r} and not to; leave one line"
                )
            found.signs[key], found.lines[key] = sign, line
        if not found.signs:
            raise InputError(f"{path}: holds no label; give lines such as 0001.jpg,{names[0]},1")
        return found

    def refuse_numbers(self, every: int, most: int) -> None:
        """Raise InputError where a frame is called by what is no number of a video's frame.

        Args:
            every: each N-th frame is taken. most: and this many at most.
        """
        for (frame, _), line in self.lines.items():
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
            InputError: the file names a frame that there is not, or twice.
        """
        rows = {name: index for index, name in enumerate(frames)}
        twice = {name for name, count in Counter(frames).items() if count > 1}
        labels = np.zeros((len(frames), len(self.names)), np.int8)
        for (frame, tag), sign in self.signs.items():
            where = f"{self.path}, line {self.lines[frame, tag]}"
            row = _find(rows, frame, "frame", where)
            if frame in twice:
                raise InputError(
                    f"{where}: there are several frames {frame!r}; give one folder or video at a "
                    "time, or rename the pictures"
                )
            labels[row, tag] = sign
        return labels


def _rows(path: str | Path) -> list[tuple[int, dict[str, str | None]]]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the labels: {error}") from None
    lines = text.splitlines()
    parted_by = ";" if lines and ";" in lines[0] else ","
    reader = csv.DictReader(lines, delimiter=parted_by)
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


def _sign(row: dict[str, str | None], where: str) -> int:
    value = (row["present"] or "").strip()
    if value not in _SIGNS:
        raise InputError(f"{where}: present should be 1 or 0, got {value!r}")
    return _SIGNS[value]

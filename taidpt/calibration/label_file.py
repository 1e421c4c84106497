"""Labels of a few frames: a CSV with the columns frame, tag, present."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError

__all__ = ["read_labels"]

Targets = npt.NDArray[np.int8]

_COLUMNS = ("frame", "tag", "present")
_SIGNS = {"1": 1, "0": -1, "-1": -1}


def read_labels(path: str | Path, frames: Sequence[str], names: tuple[str, ...]) -> Targets:
    """Read a CSV with the columns frame, tag, present; commas or semicolons part them.

    Args:
        path: a CSV file; present is 1 or 0 (or −1). The same line twice counts once.
        frames: how the file may call each frame.
        names: the tags.
    Returns:
        1, −1, or 0 where nothing is said, int8 [N, C].
    Raises:
        InputError: it cannot be read or holds no label, names a frame or a tag that there is not
            or a frame that there is twice, or says both 1 and 0.
    """
    places = _Places(frames, names)
    labels = np.zeros((len(frames), len(names)), np.int8)
    for line, row in _rows(path):
        where = f"{path}, line {line}"
        place = places.find(row, where)
        sign = _sign(row, where)
        if labels[place] == -sign:
            raise InputError(
                f"{where}: {row['frame']} is said to have {row['tag']!r} and not to; leave one line"
            )
        labels[place] = sign
    if not labels.any():
        raise InputError(f"{path}: holds no label; give lines such as {frames[0]},{names[0]},1")
    return labels


class _Places:
    """Where a label belongs."""

    def __init__(self, frames: Sequence[str], names: Sequence[str]) -> None:
        self._rows = {name: index for index, name in enumerate(frames)}
        self._columns = {name: index for index, name in enumerate(names)}
        self._twice = {name for name, count in Counter(frames).items() if count > 1}

    def find(self, row: dict[str, str | None], where: str) -> tuple[int, int]:
        """The row and the column of a line."""
        frame = _find(self._rows, row["frame"], "frame", where)
        if (row["frame"] or "").strip() in self._twice:
            raise InputError(
                f"{where}: there are several frames {row['frame']!r}; give one folder or video at "
                "a time, or rename the pictures"
            )
        return frame, _find(self._columns, row["tag"], "tag", where)


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

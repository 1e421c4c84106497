"""Pictures with known tags, for the change of mAP between two ways to run a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.export.parity.reference_pictures import Picture
from taidpt.metrics import mean_average_precision
from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.json_reader import parse_json
from taidpt.runtime.storage.regular_file import read_regular

__all__ = ["LabelledPictures", "read_labels"]


@dataclass(frozen=True, eq=False)
class LabelledPictures:
    """Pictures as the graph's frames, and which tags each shows, bool [N, C]."""

    pictures: tuple[Picture, ...]
    positive: npt.NDArray[np.bool_]

    def percent(self, scores: npt.NDArray[Any]) -> float:
        """mAP of scores [N, C] in percent."""
        return mean_average_precision(scores, np.where(self.positive, 1, -1)).value


def read_labels(path: Path, pictures: Sequence[Picture], names: Sequence[str]) -> LabelledPictures:
    """Read `{"picture.jpg": ["dog", …], …}`, with names as in the folder of pictures.

    Raises:
        InputError: it cannot be read, lacks a picture, or has none of the tags.
    """
    try:
        document = parse_json(read_regular(path))
        rows = {str(name): set(map(str, tags)) for name, tags in document.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f'{path}: labels should be JSON like {{"picture.jpg": ["dog"]}}: {error}'
        ) from None
    missing = [picture.name for picture in pictures if picture.name not in rows]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{path}: no labels for {missing[0]}{more}")
    positive = np.array([[name in rows[p.name] for name in names] for p in pictures], bool)
    if not positive.any():
        raise InputError(f"{path}: names none of the bundle's tags, such as {names[0]!r}")
    return LabelledPictures(tuple(pictures), positive)

"""OpenImages' localized narratives: *localized_narratives*.jsonl with one `caption` per line.

Source: Pont-Tuset et al. 2020. TaI-DPT uses them for NUS-WIDE, at most 1,000 per class; see
`taidpt.texts.labels.balance_texts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.texts.captions import read_texts

__all__ = ["NARRATIVES_PLACES", "NARRATIVES_SOURCE", "narratives"]

NARRATIVES_SOURCE = "https://google.github.io/localized-narratives/"
NARRATIVES_PLACES = (".", "openimages", "OpenImages", "open_images", "localized_narratives")


def narratives(root: str | Path) -> Iterator[str]:
    """Stream all narratives below a root, file by file in name order.

    Raises:
        InputError: there are none.
    """
    for place in NARRATIVES_PLACES:
        files = sorted((Path(root) / place).glob("*localized_narratives*.jsonl*"))
        if files:
            for path in files:
                yield from read_texts(path)
            return
    raise InputError(
        f"{root}: no open_images_*_localized_narratives*.jsonl; they come from {NARRATIVES_SOURCE}"
    )

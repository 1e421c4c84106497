"""OpenImages' localized narratives: *localized_narratives*.jsonl with one `caption` per line.

Source: Pont-Tuset et al. 2020. TaI-DPT uses them for NUS-WIDE, at most 1,000 per class; see
`taidpt.texts.labels.balance_texts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.texts.captions import read_texts

__all__ = ["NARRATIVES_PLACES", "NARRATIVES_SOURCE", "narrative_files", "narratives"]

NARRATIVES_SOURCE = "https://google.github.io/localized-narratives/"
NARRATIVES_PLACES = (".", "openimages", "OpenImages", "open_images", "localized_narratives")


def narrative_files(root: str | Path) -> tuple[Path, ...]:
    """The files of localized narratives below a root, in name order.

    Raises:
        InputError: there are none.
    """
    base = Path(root)
    for place in NARRATIVES_PLACES:
        files = sorted((base / place).glob("*localized_narratives*.jsonl*"))
        if files:
            return tuple(files)
    raise InputError(
        f"{base}: no open_images_*_localized_narratives*.jsonl; they come from {NARRATIVES_SOURCE}"
    )


def narratives(root: str | Path) -> Iterator[str]:
    """Stream all narratives, file by file."""
    for path in narrative_files(root):
        yield from read_texts(path)

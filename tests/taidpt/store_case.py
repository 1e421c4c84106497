"""A feature store that fills slowly, for the test that kills it in the middle."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from taidpt.clip.model import load_clip
from taidpt.datasets import LabelledImages, load_dataset
from taidpt.features import picture_store
from taidpt.features.picture_store import StoreSettings, store_features
from taidpt.progress import SilentProgress

__all__ = ["few_pictures"]


class SlowProgress(SilentProgress):
    """Takes its time, so that a kill lands between two batches."""

    def advance(self, count: int = 1, detail: str = "") -> None:
        time.sleep(0.3)


def few_pictures(folder: Path) -> LabelledImages:
    """Some of the toy world's test pictures, unpacked below a folder."""
    return load_dataset("toyworld", folder).subset(range(0, 522, 30))


if __name__ == "__main__":
    picture_store._SAVE_SECONDS = 0.0
    settings = StoreSettings(precision="fp32", batch=4)
    pictures = few_pictures(Path(sys.argv[2]))
    clip = load_clip("toyworld", "embedded")
    store_features(clip, pictures, Path(sys.argv[1]), settings, SlowProgress())

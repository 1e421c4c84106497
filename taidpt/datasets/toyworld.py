"""The embedded toy world's held-out pictures as a data set like any other."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from taidpt.datasets.base import LabelledImages
from taidpt.runtime.files import write_atomically
from taidpt.tags import TagSet
from taidpt.toyworld import assets

__all__ = ["load_toyworld"]


def load_toyworld(root: str | Path) -> LabelledImages:
    """The held-out pictures, unpacked below a folder (made when it is not there).

    Args:
        root: any folder; the pictures go to toyworld-heldout/ in it.
    """
    folder = Path(root) / "toyworld-heldout"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(assets.heldout_path()) as archive:
        pictures = json.loads(archive.read("labels.json"))["pictures"]
        paths = tuple(folder / Path(picture["file"]).name for picture in pictures)
        for picture, path in zip(pictures, paths, strict=True):
            data = archive.read(picture["file"])
            if not path.is_file() or path.stat().st_size != len(data):
                Image.open(io.BytesIO(data)).verify()
                write_atomically(path, data)
    tags = TagSet.load(assets.tags_path())
    names = tags.names
    targets = np.full((len(pictures), len(names)), -1, np.int8)
    for row, picture in enumerate(pictures):
        targets[row, [names.index(tag) for tag in picture["tags"]]] = 1
    ids = tuple(path.stem for path in paths)
    return LabelledImages("toyworld held-out", tags, ids, paths, targets)

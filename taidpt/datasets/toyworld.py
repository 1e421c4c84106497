"""The embedded toy world as a data set: pictures of three splits that ship in the package.

"test" is the held-out set, "val" is for choosing settings, "train" for tuning prompts on pictures.
All three are scenes over kinds of backgrounds that the model has not seen.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from taidpt.datasets.base import LabelledImages
from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.json_reader import parse_json
from taidpt.texts.tags import TagSet
from taidpt.toyworld import assets

__all__ = ["load_toyworld"]

# split → name in data sets and in files
_SPLITS = {"test": "heldout", "train": "train", "val": "val"}


def load_toyworld(root: str | Path, split: str = "test") -> LabelledImages:
    """The pictures of a split, unpacked below a folder, which is created if missing.

    Args:
        root: any folder; pictures go to toyworld-heldout/, -train/ or -val/ in it.
        split: "test", "train" or "val".
    Raises:
        InputError: an unknown split.
    """
    if split not in _SPLITS:
        raise InputError(f"the toy world has the splits {', '.join(_SPLITS)}, got {split!r}")
    folder = Path(root) / f"toyworld-{_SPLITS[split]}"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _unpack(assets.path(f"{_SPLITS[split]}.zip"), folder)
    tags = TagSet.load(assets.path("tags.yaml"))
    targets = np.full((len(pictures), len(tags)), -1, np.int8)
    for row, picture in enumerate(pictures):
        targets[row, [tags.names.index(tag) for tag in picture["tags"]]] = 1
    paths = tuple(folder / Path(picture["file"]).name for picture in pictures)
    ids = tuple(path.stem for path in paths)
    name = "held-out" if split == "test" else split
    return LabelledImages(f"toyworld {name}", tags, ids, paths, targets)


def _unpack(archive_path: Path, folder: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(archive_path) as archive:
        pictures: list[dict[str, Any]] = parse_json(archive.read("labels.json"))["pictures"]
        for picture in pictures:
            path, sum32 = folder / Path(picture["file"]).name, archive.getinfo(picture["file"]).CRC
            if not path.is_file() or zlib.crc32(path.read_bytes()) != sum32:
                data = archive.read(picture["file"])
                Image.open(io.BytesIO(data)).verify()
                # not synced, which takes seconds for all: the sum shows what a power cut has lost
                temporary = path.with_name(f".{path.name}.{os.getpid()}")
                temporary.write_bytes(data)
                temporary.replace(path)
    return pictures

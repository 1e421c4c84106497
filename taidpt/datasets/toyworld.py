"""The embedded toy world as a data set.

"test" is the held-out set that ships in the package. "val" and "train" are other scenes over the
same kinds of backgrounds, rendered on first use (which needs the emoji font). "val" is for choosing
settings, "train" for tuning prompts on pictures.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from taidpt.datasets.base import LabelledImages
from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.atomic import write_atomically
from taidpt.runtime.storage.json_reader import parse_json
from taidpt.texts.tags import TagSet
from taidpt.toyworld import assets

__all__ = ["load_toyworld"]

# split → seed of its scenes (1 and 2 belong to the model and the held-out set, 3 to the video), and
# the fewest pictures of each tag
_RENDERED = {"train": (4, 20), "val": (5, 20)}
_INDEX = "labels.json"


def load_toyworld(root: str | Path, split: str = "test") -> LabelledImages:
    """The pictures of a split, unpacked or rendered below a folder, which is created if missing.

    Args:
        root: any folder; pictures go to toyworld-heldout/, -train/ or -val/ in it.
        split: "test", "train" or "val".
    Raises:
        InputError: an unknown split.
        MissingDependencyError: "train" or "val" without the emoji font.
    """
    if split == "test":
        return _labelled("held-out", Path(root) / "toyworld-heldout", _unpack)
    if split not in _RENDERED:
        raise InputError(f"the toy world has the splits test, train and val, got {split!r}")
    return _labelled(split, Path(root) / f"toyworld-{split}", lambda at: _render(at, split))


def _labelled(name: str, folder: Path, fill: Any) -> LabelledImages:
    folder.mkdir(parents=True, exist_ok=True)
    pictures: Sequence[dict[str, Any]] = fill(folder)
    tags = TagSet.load(assets.tags_path())
    targets = np.full((len(pictures), len(tags)), -1, np.int8)
    for row, picture in enumerate(pictures):
        targets[row, [tags.names.index(tag) for tag in picture["tags"]]] = 1
    paths = tuple(folder / Path(picture["file"]).name for picture in pictures)
    ids = tuple(path.stem for path in paths)
    return LabelledImages(f"toyworld {name}", tags, ids, paths, targets)


def _unpack(folder: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(assets.heldout_path()) as archive:
        pictures: list[dict[str, Any]] = parse_json(archive.read(_INDEX))["pictures"]
        for picture in pictures:
            path, data = folder / Path(picture["file"]).name, archive.read(picture["file"])
            if not path.is_file() or path.stat().st_size != len(data):
                Image.open(io.BytesIO(data)).verify()
                write_atomically(path, data)
    return pictures


def _render(folder: Path, split: str) -> list[dict[str, Any]]:
    """Render a split once; its index is written last, so that a stopped run starts again."""
    index = folder / _INDEX
    if not index.is_file():
        from taidpt.toyworld.drawing.heldout_pictures import choose_scenes, encode_webp
        from taidpt.toyworld.drawing.things import TAG_NAMES

        seed, positives = _RENDERED[split]
        pictures = []
        for row, scene in enumerate(choose_scenes(positives, seed)):
            file = f"{row:04d}.webp"
            pictures.append({"file": file, "tags": [TAG_NAMES[thing] for thing in scene.things]})
            write_atomically(folder / file, encode_webp(scene))
        write_atomically(index, json.dumps({"pictures": pictures}).encode())
    try:
        found: list[dict[str, Any]] = parse_json(index.read_text("utf-8"))["pictures"]
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(f"{index}: damaged; delete it to draw the pictures again") from None
    return found

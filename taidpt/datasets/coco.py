"""COCO: <split>/ with pictures, annotations/instances_<split>.json and captions_<split>.json.

Source: Lin et al. 2014. As in TaI-DPT's evaluation, every picture of the split counts, also those
without any object, and crowds count as shown.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from taidpt.datasets.base import LabelledImages, class_tags, find_root, require_pictures
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.storage.json_reader import parse_json
from taidpt.runtime.storage.regular_file import read_regular

__all__ = [
    "COCO_PLACES",
    "COCO_SOURCE",
    "coco_captions",
    "coco_folder",
    "image_ids",
    "load_coco",
    "read_coco",
]

COCO_SOURCE = "https://cocodataset.org/#download"
COCO_PLACES = (".", "coco", "COCO", "coco2014", "mscoco")


def coco_folder(root: str | Path, annotations: str) -> Path:
    """The folder that holds annotations/<file>."""
    return find_root(root, COCO_PLACES, f"annotations/{annotations}", COCO_SOURCE)


def load_coco(root: str | Path, split: str = "val2014") -> LabelledImages:
    """Read a split of COCO with the 80 classes.

    Args:
        root: the folder of the data sets, or of COCO itself.
        split: "val2014", "train2014", "val2017" or "train2017".
    Raises:
        InputError: files are missing or damaged, or an annotation names an unknown class or
            picture.
        MissingDependencyError: pycocotools is not installed.
    """
    name = f"instances_{split}.json"
    folder = coco_folder(root, name)
    tags = class_tags("coco2014")
    coco = read_coco(folder / "annotations" / name)
    columns = _columns(coco, tags.names, folder / "annotations" / name)
    rows = {image: row for row, image in enumerate(coco.imgs)}
    targets = np.full((len(rows), len(tags)), -1, np.int8)
    for annotation in coco.anns.values():
        targets[rows[annotation["image_id"]], columns[annotation["category_id"]]] = 1
    paths = tuple(folder / split / image["file_name"] for image in coco.imgs.values())
    require_pictures(paths, COCO_SOURCE)
    ids = tuple(map(str, coco.imgs))
    return LabelledImages(f"coco {split}", tags, ids, paths, targets)


def read_coco(path: Path) -> Any:
    """A pycocotools index of an annotation file, checked.

    Raises:
        InputError: the file is damaged, or an annotation names an unknown picture or class.
    """
    with optional_packages("reading COCO's annotations", "datasets"):
        from pycocotools.coco import COCO
    document = _read_json(path)
    missing = [key for key in ("images", "annotations", "categories") if key not in document]
    if missing:
        raise InputError(f"{path}: no {', '.join(missing)}; expected COCO's instances")
    _check_instances(document, path)
    coco = COCO()
    coco.dataset = document
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def image_ids(path: Path) -> set[int]:
    """The ids of the pictures in a COCO file; 2014 and 2017 share one numbering."""
    return {image["id"] for image in _records(_read_json(path), "images", {"id": int}, path)}


def coco_captions(path: Path, leave_out: Collection[int] = ()) -> Iterator[str]:
    """The first caption of each picture, as in TaI-DPT, in file order of the pictures.

    Args:
        path: captions_<split>.json.
        leave_out: pictures whose captions are skipped. The ids of val2014 remove about 35,500
            captions of test pictures from train2017.
    Raises:
        InputError: a picture has no caption, or the file is damaged.
    """
    document = _read_json(path)
    images = _records(document, "images", {"id": int}, path)
    captions: dict[int, str] = {image["id"]: "" for image in images}
    if not captions:
        raise InputError(f"{path}: no pictures under `images`; expected COCO's captions")
    for annotation in _records(document, "annotations", {"image_id": int}, path):
        image, caption = annotation.get("image_id"), annotation.get("caption")
        if image not in captions or not isinstance(caption, str):
            what = "no caption" if image in captions else f"the unknown picture {image}"
            raise InputError(f"{path}: annotation {annotation.get('id')} has {what}")
        captions[image] = captions[image] or caption.strip()
    bare = [image for image, text in captions.items() if not text]
    if bare:
        raise InputError(f"{path}: {len(bare)} pictures have no caption, the first is {bare[0]}")
    yield from (text for image, text in captions.items() if image not in leave_out)


def _columns(coco: Any, names: tuple[str, ...], path: Path) -> dict[int, int]:
    """Category id → column."""
    columns = {name: index for index, name in enumerate(names)}
    unknown = [item["name"] for item in coco.cats.values() if item["name"] not in columns]
    if unknown:
        raise InputError(f"{path}: unknown classes {', '.join(unknown[:5])}; COCO has 80 others")
    return {number: columns[item["name"]] for number, item in coco.cats.items()}


def _records(
    document: dict[str, Any], key: str, fields: Mapping[str, type], path: Path
) -> list[dict[str, Any]]:
    """The objects under `key`, whose fields are of these types; none where the key is missing."""
    records = document.get(key, [])
    for record in records if isinstance(records, list) else [None]:
        values = record if isinstance(record, dict) else {}
        wrong = [name for name, kind in fields.items() if type(values.get(name)) is not kind]
        if wrong:
            raise InputError(
                f"{path}: damaged: `{key}` should be a list of objects with {', '.join(fields)}"
            )
    return list(records)


def _check_instances(document: dict[str, Any], path: Path) -> None:
    fields = {"id": int, "image_id": int, "category_id": int}
    images = {
        image["id"] for image in _records(document, "images", {"id": int, "file_name": str}, path)
    }
    categories = {
        category["id"]
        for category in _records(document, "categories", {"id": int, "name": str}, path)
    }
    for annotation in _records(document, "annotations", fields, path):
        if annotation["category_id"] not in categories:
            raise InputError(
                f"{path}: annotation {annotation.get('id')} is of the unknown class "
                f"{annotation['category_id']}"
            )
        if annotation["image_id"] not in images:
            raise InputError(
                f"{path}: annotation {annotation.get('id')} is of the unknown picture "
                f"{annotation['image_id']}"
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = parse_json(read_regular(path))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; it comes from {COCO_SOURCE}") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error})") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document

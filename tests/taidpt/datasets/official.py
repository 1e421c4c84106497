"""Miniature data sets in the exact official formats."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from taidpt.datasets import class_tags

COCO_CATEGORIES = {1: "person", 2: "bicycle", 17: "cat", 18: "dog", 44: "bottle"}


def picture(path: Path, grey: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (grey, grey, grey)).save(path)


def write_voc(root: Path, year: int, split: str, objects: dict[str, list[tuple[str, int]]]) -> Path:
    """Write a VOC split; objects maps an id to (class, difficult) pairs."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "ImageSets/Main" / f"{split}.txt").write_text(
        "".join(f"{name}\n" for name in objects)
    )
    for name, shown in objects.items():
        picture(folder / "JPEGImages" / f"{name}.jpg")
        (folder / "Annotations" / f"{name}.xml").write_text(_voc_xml(name, shown))
    return folder


def _voc_xml(name: str, shown: list[tuple[str, int]]) -> str:
    objects = "".join(
        f"\t<object>\n\t\t<name>{what}</name>\n\t\t<pose>Left</pose>\n\t\t<truncated>1</truncated>\n"
        f"\t\t<difficult>{difficult}</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>1</xmin>\n"
        "\t\t\t<ymin>1</ymin>\n\t\t\t<xmax>9</xmax>\n\t\t\t<ymax>9</ymax>\n\t\t</bndbox>\n\t</object>\n"
        for what, difficult in shown
    )
    return (
        f"<annotation>\n\t<folder>VOC2007</folder>\n\t<filename>{name}.jpg</filename>\n"
        "\t<size>\n\t\t<width>20</width>\n\t\t<height>16</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def write_coco(
    root: Path,
    split: str,
    objects: dict[int, Sequence[tuple[int, int]]],
    categories: dict[int, str] | None = None,
    name: str | None = None,
) -> Path:
    """Write instances; objects maps a picture to (category, iscrowd) pairs."""
    folder = root / "coco"
    images, annotations = [], []
    for image, shown in objects.items():
        file_name = f"COCO_{split}_{image:012d}.jpg"
        picture(folder / split / file_name)
        images.append({"id": image, "file_name": file_name, "width": 20, "height": 16})
        for category, crowd in shown:
            box = {"bbox": [1, 1, 8, 8], "area": 64, "iscrowd": crowd}
            outline: Any = {"counts": [320], "size": [16, 20]} if crowd else [[1, 1, 9, 1, 9, 9]]
            annotation = {"id": len(annotations) + 1, "image_id": image, "category_id": category}
            annotations.append({**annotation, **box, "segmentation": outline})
    named = categories or COCO_CATEGORIES
    listed = [{"id": key, "name": what, "supercategory": "any"} for key, what in named.items()]
    path = folder / "annotations" / (name or f"instances_{split}.json")
    write_json(path, {"images": images, "annotations": annotations, "categories": listed})
    return path


def write_captions(root: Path, split: str, captions: dict[int, list[str]]) -> Path:
    path = root / "coco" / "annotations" / f"captions_{split}.json"
    images = [{"id": image, "file_name": f"{image:012d}.jpg"} for image in captions]
    pairs = [(image, text) for image, texts in captions.items() for text in texts]
    # The official files list captions in the order of their own ids, not picture by picture.
    annotations = [
        {"id": number, "image_id": image, "caption": text}
        for number, (image, text) in enumerate(sorted(pairs, key=lambda pair: pair[1]))
    ]
    write_json(path, {"images": images, "annotations": annotations})
    return path


def write_nuswide(root: Path, pictures: dict[str, set[str]], split: str = "Test") -> Path:
    """Write NUS-WIDE; pictures maps a list line such as `actor\\0001.jpg` to its concepts."""
    folder = root / "NUS-WIDE"
    names = class_tags("nuswide").names
    for part in ("ConceptsList", "ImageList", "Groundtruth/TrainTestLabels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "ConceptsList/Concepts81.txt").write_text("\r\n".join(names) + "\r\n")
    listing = "".join(f"{line}\r\n" for line in pictures)
    (folder / f"ImageList/{split}Imagelist.txt").write_text(listing)
    for name in names:
        column = "".join(f"{int(name in shown)}\n" for shown in pictures.values())
        (folder / f"Groundtruth/TrainTestLabels/Labels_{name}_{split}.txt").write_text(column)
    for line in pictures:
        picture(folder / "Flickr" / line.replace("\\", "/"))
    return folder


def write_long_tail(
    folder: Path, groups: dict[str, set[int]], ids: Sequence[str], name: str
) -> None:
    """Write an appendix as Wu et al. do: sets of NumPy integers in a protocol-2 pickle."""
    folder.mkdir(parents=True)
    (folder / name).write_text("\n".join(ids))
    numbers = {key: {np.int64(index) for index in members} for key, members in groups.items()}
    (folder / "class_split.pkl").write_bytes(pickle.dumps(numbers, protocol=2))


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))

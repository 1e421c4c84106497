"""The toy world's shipped files.

| file | content |
|---|---|
| `tags.yaml` | the sixty tags with their synonyms |
| `tuning_captions.txt` | a tuning caption a line, unseen by the model |
| `model.safetensors`, `model.json` | its weights in fp16 and open_clip's configuration |
| `merges.txt.gz` | the byte-pair merges for open_clip's `SimpleTokenizer(bpe_path=…)` |
| `heldout.zip`, `train.zip`, `val.zip` | pictures as WebP, with their tags in `labels.json` |
| `demo.mp4`, `demo_timeline.json` | the demo video, H.264, and the spans of its tags |
| `NOTICE.txt` | sources and licences of the emoji art and the merges |
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.json_reader import parse_json

__all__ = ["FOLDER", "TUNING_RATE", "load_heldout", "path", "timeline"]

# Learning rate of prompts on this model: ten times the paper's rate for VOC and COCO. On the val
# pictures 3e-4 and 3e-3 are within 0.1 points of its mAP (benchmarks/toyworld_rates.py).
TUNING_RATE = 1e-3

FOLDER = Path(__file__).resolve().parent / "files"


def path(name: str) -> Path:
    """The path of one shipped file.

    Raises:
        InputError: it is missing from the installation.
    """
    found = FOLDER / name
    if not found.is_file():
        raise InputError(
            f"{found} is missing from this installation: install taidpt again, or run "
            "`python scripts/toyworld/build_files.py` in a checkout"
        )
    return found


def timeline() -> list[dict[str, Any]]:
    """Spans of the demo video's tags, seconds: `[{"tag": "dog", "start": 1.5, "end": 6.0}, …]`."""
    spans: list[dict[str, Any]] = parse_json(path("demo_timeline.json").read_text("utf-8"))
    return spans


def load_heldout(
    every: int = 1,
) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64], tuple[str, ...]]:
    """The held-out pictures: scenes with seeds and background families unseen in training.

    Args:
        every: reads every so many of them alone, from the first on.
    Returns:
        Pictures, uint8 RGB [H, W, 3]; labels 0 or 1, [N, C]; the C tag names.
    """
    with zipfile.ZipFile(path("heldout.zip")) as archive:
        facts = parse_json(archive.read("labels.json"))
        names = tuple(facts["tags"])
        chosen = facts["pictures"][::every]
        labels = np.zeros((len(chosen), len(names)), np.int64)
        images: list[NDArray[np.uint8]] = []
        for row, picture in enumerate(chosen):
            stored = Image.open(io.BytesIO(archive.read(picture["file"])))
            images.append(np.asarray(stored.convert("RGB")))
            labels[row, [names.index(tag) for tag in picture["tags"]]] = 1
    return images, labels, names

"""Paths of the toy world's shipped files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.json_reader import parse_json

__all__ = [
    "FILES",
    "FOLDER",
    "TUNING_RATE",
    "captions_path",
    "config_path",
    "heldout_path",
    "merges_path",
    "notice_path",
    "path",
    "tags_path",
    "timeline",
    "video_path",
    "weights_path",
]

# Learning rate of prompts on this model: ten times the paper's rate for VOC and COCO. It gave the
# best mAP of the rates from 1e-3 to 5e-3.
TUNING_RATE = 1e-3

FOLDER = Path(__file__).resolve().parent / "files"

FILES: tuple[str, ...] = (
    "NOTICE.txt",
    "demo.mp4",
    "demo_timeline.json",
    "heldout.zip",
    "merges.txt.gz",
    "model.json",
    "model.safetensors",
    "tags.yaml",
    "train.zip",
    "tuning_captions.txt",
    "val.zip",
)


def path(name: str) -> Path:
    """The path of one shipped file.

    Raises:
        InputError: there is no such file, or it is missing from the installation.
    """
    if name not in FILES:
        raise InputError(f"the toy world has no file {name!r}; it has {', '.join(FILES)}")
    found = FOLDER / name
    if not found.is_file():
        raise InputError(
            f"{found} is missing from this installation: install taidpt again, or run "
            "`python scripts/toyworld/build_files.py` in a checkout"
        )
    return found


def tags_path() -> Path:
    """`tags.yaml`: the sixty tags with their synonyms."""
    return path("tags.yaml")


def captions_path() -> Path:
    """Plain text, one tuning caption a line, unseen by the model."""
    return path("tuning_captions.txt")


def weights_path() -> Path:
    """The model's weights, fp16 safetensors."""
    return path("model.safetensors")


def config_path() -> Path:
    """The model's configuration as open_clip reads it."""
    return path("model.json")


def merges_path() -> Path:
    """The byte-pair merges for open_clip's `SimpleTokenizer(bpe_path=…)`."""
    return path("merges.txt.gz")


def heldout_path() -> Path:
    """Pictures with their labels: `labels.json` and WebP files in one zip."""
    return path("heldout.zip")


def video_path() -> Path:
    """The demo video, H.264."""
    return path("demo.mp4")


def notice_path() -> Path:
    """Sources and licences of the emoji art and the merges."""
    return path("NOTICE.txt")


def timeline() -> list[dict[str, Any]]:
    """Spans of the demo video's tags, seconds: `[{"tag": "dog", "start": 1.5, "end": 6.0}, …]`."""
    spans: list[dict[str, Any]] = parse_json(path("demo_timeline.json").read_text("utf-8"))
    return spans

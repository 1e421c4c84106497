"""Features of a data set's pictures, computed once and stored on disk; a stopped run resumes.

Each combination of model, preprocessing and pictures has a folder with NumPy files of their final
size and `state.json` with the number of pictures done, updated after the arrays are flushed.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from taidpt.clip.model import ClipModel
from taidpt.datasets.base import LabelledImages
from taidpt.datasets.pictures import picture_loader
from taidpt.encoders.picture_input import PictureInput
from taidpt.features.pictures import PictureFeatures, encode_pictures
from taidpt.progress import Progress, SilentProgress
from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.atomic import write_atomically
from taidpt.runtime.storage.json_reader import parse_json

__all__ = ["StoreSettings", "store_features"]

_FORMAT = 2
_ARRAYS = ("global_features", "patch_features")  # and "zero_shot" at the model's own size
_SAVE_SECONDS = 20.0  # the most work that a killed run loses


@dataclass(frozen=True)
class StoreSettings:
    """How features are computed and stored.

    Attributes:
        precision: "fp16" or "fp32" on disk.
        batch: pictures per step.
        workers: processes that read pictures; 0 for the main process.
        picture: size and crop of the pictures, and the local branch.
    """

    precision: str = "fp16"
    batch: int = 32
    workers: int = 0
    picture: PictureInput = PictureInput()

    def __post_init__(self) -> None:
        if self.precision not in ("fp16", "fp32"):
            raise InputError(f"feature precision {self.precision!r}: expected fp16 or fp32")


def store_features(
    clip: ClipModel,
    images: LabelledImages,
    cache: Path,
    settings: StoreSettings | None = None,
    progress: Progress | None = None,
) -> PictureFeatures:
    """Read the features of a data set; compute those that are not stored yet.

    Args:
        clip: the model.
        images: N pictures.
        cache: folder for features of any model and data set.
        settings: how to compute and store them.
        progress: reports pictures done.
    Raises:
        InputError: no pictures, a picture cannot be read, or the cache is damaged.
    """
    settings, progress = settings or StoreSettings(), progress or SilentProgress()
    if not len(images):
        raise InputError(f"{images.name}: no pictures")
    clip = settings.picture.model(clip)
    folder = cache / _key(clip, images, settings)
    done = _done(folder)
    if done < len(images):
        _fill(clip, images, folder, done, settings, progress)
    whole, patches = (torch.from_numpy(_open(folder, name)) for name in _ARRAYS)
    own = (folder / "zero_shot.npy").exists()
    zero_shot = torch.from_numpy(_open(folder, "zero_shot")) if own else None
    return PictureFeatures(zero_shot, whole, patches)


def _key(clip: ClipModel, images: LabelledImages, settings: StoreSettings) -> str:
    """Folder name that depends on model, preprocessing, and names and sizes of the pictures."""
    identity = [_FORMAT, clip.name, clip.weights_sha256, clip.image_size, settings.precision]
    identity.append(settings.picture.resize)
    if clip.local_branch != "value":  # features that are stored already keep their folders
        identity.append(clip.local_branch)
    digest = hashlib.sha256(json.dumps([*identity, clip.mean, clip.std]).encode())
    for name, path in zip(images.ids, images.paths, strict=True):
        digest.update(f"{name}\0{path.stat().st_size}\n".encode())
    return f"{images.name.replace(' ', '-').replace('/', '-')}-{digest.hexdigest()[:16]}"


def _done(folder: Path) -> int:
    path = folder / "state.json"
    try:
        return int(parse_json(path.read_text("utf-8"))["done"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError, OSError):
        raise InputError(f"{path}: damaged; delete {folder} to compute it again") from None


def _fill(
    clip: ClipModel,
    images: LabelledImages,
    folder: Path,
    done: int,
    settings: StoreSettings,
    progress: Progress,
) -> None:
    progress.start("Features of pictures", len(images), done)
    rest = images.subset(range(done, len(images)))
    crop = settings.picture.preprocess(clip)
    arrays: dict[str, npt.NDArray[Any]] = {}
    saved = time.monotonic()
    try:
        for frames, _ in picture_loader(rest, crop, settings.batch, settings.workers):
            features = encode_pictures(clip, frames.numpy())
            arrays = arrays or _allocate(folder, features, len(images), done, settings.precision)
            for name, array in arrays.items():
                array[done : done + len(frames)] = getattr(features, name).numpy()
            done += len(frames)
            progress.advance(len(frames))
            if time.monotonic() - saved > _SAVE_SECONDS:
                _save_state(folder, arrays, done)
                saved = time.monotonic()
    finally:
        if arrays:
            _save_state(folder, arrays, done)


def _allocate(
    folder: Path, features: PictureFeatures, count: int, done: int, precision: str
) -> dict[str, npt.NDArray[Any]]:
    """The arrays opened for writing; those of a stopped run keep their content."""
    names = _ARRAYS if features.zero_shot is None else ("zero_shot", *_ARRAYS)
    if done:
        return {name: _open(folder, name, "r+") for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.float16 if precision == "fp16" else np.float32
    return {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", dtype, (count, *getattr(features, name).shape[1:])
        )
        for name in names
    }


def _open(folder: Path, name: str, mode: Any = "c") -> npt.NDArray[Any]:
    # "c" reads lazily and lets torch wrap the array without a warning; the file is not changed.
    path = folder / f"{name}.npy"
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: {error}; delete {folder} to compute it again") from None
    return array


def _save_state(folder: Path, arrays: dict[str, npt.NDArray[Any]], done: int) -> None:
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()
    write_atomically(folder / "state.json", json.dumps({"done": done}).encode())

"""Prompts tuned on a data set's pictures, from files to a file: `taidpt tune-pictures`.

The pictures are encoded once and their features kept, as for evaluation: one centre crop each, no
random crops, flips or colours. The methods' authors augment; a record says which was done.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from taidpt.benchmark import default_cache
from taidpt.clip import check_clip_source, load_clip
from taidpt.datasets import load_dataset
from taidpt.picture_features import PictureSource, mask_labels
from taidpt.picture_store import StoredFeatures, StoreSettings, store_features
from taidpt.progress import Progress
from taidpt.prompts import TunedPrompts
from taidpt.tune_settings import TuneSettings, settings_of
from taidpt.tuner import tune_on_pictures

__all__ = ["PictureTuneJob", "run_picture_job"]


@dataclass(frozen=True)
class PictureTuneJob:
    """What to tune on which pictures.

    Attributes:
        dataset, root: as `load_dataset` takes them; its train split is used.
        method: "coop" or "dualcoop".
        model, pretrained: as `load_clip` takes them.
        output: the prompts file.
        known: share of the labels that is known, each (picture, class) by itself.
        seed: of the mask, the contexts and the order.
        epochs, lr: instead of the method's own.
        cache: a folder for features, None for the user's own.
        store: precision and batch of the features.
    """

    dataset: str
    root: Path
    method: str
    model: str
    pretrained: str
    output: Path
    known: float = 1.0
    seed: int = 0
    epochs: int | None = None
    lr: float | None = None
    cache: Path | None = None
    store: StoreSettings = field(default_factory=StoreSettings)


def run_picture_job(job: PictureTuneJob, progress: Progress) -> TunedPrompts:
    """Encode, hide labels, tune and save.

    Raises:
        InputError: anything about the data set, the model or the settings.
    """
    settings = _settings(job)
    check_clip_source(job.model, job.pretrained)
    images = load_dataset(job.dataset, job.root, "train")
    labels = torch.from_numpy(images.targets.astype(np.float32))
    labels = mask_labels(labels, job.known, job.seed)
    clip = load_clip(job.model, job.pretrained, job.seed)
    stored = store_features(clip, images, job.cache or default_cache(), job.store, progress)
    source = _source(stored)
    prompts = tune_on_pictures(clip, images.tags.tags, source, labels, settings, progress=progress)
    record = {"data_set": images.name, "known": job.known, "augmentation": "none, centre crop"}
    prompts = replace(prompts, provenance={**prompts.provenance, "pictures_from": record})
    prompts.save(job.output)
    return prompts


def _settings(job: PictureTuneJob) -> TuneSettings:
    settings = replace(settings_of(job.method), seed=job.seed)
    if job.epochs is not None:
        settings = replace(settings, epochs=job.epochs)
    return settings if job.lr is None else replace(settings, lr=job.lr)


def _source(stored: StoredFeatures) -> PictureSource:
    """The features as they lie on disk; a batch becomes fp32 when it is taken."""
    arrays = (stored.global_features, stored.patch_features)
    return PictureSource(*(torch.from_numpy(array) for array in arrays))

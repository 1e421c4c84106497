"""`taidpt research tune-pictures`: a data set's pictures in, a prompts file out.

Without augmentation, pictures are encoded once and their features kept, as in evaluation. With
augmentation they are encoded again in every epoch. The prompts file records which was used.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from taidpt.clip.model import ClipModel, load
from taidpt.datasets import LabelledImages, load_dataset
from taidpt.datasets.defaults import find_source
from taidpt.features.augmented_pictures import AugmentedPictures
from taidpt.features.picture_store import StoreSettings, store_features
from taidpt.progress import Progress
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.storage.user_folders import cache_folder
from taidpt.tuning.picture_features import TunablePictures, few_shots, mask_labels
from taidpt.tuning.settings import RunOptions, TuneSettings, settings_of
from taidpt.tuning.text_job import check_output, checkpoint_path, pick_device, save_prompts
from taidpt.tuning.tuner import tune_on_pictures

__all__ = ["PictureTuneJob", "run_picture_job"]


@dataclass(frozen=True)
class PictureTuneJob:
    """A tuning run on pictures.

    Attributes:
        dataset, root, split: arguments of `load_dataset`; the toy world needs no root.
        model, pretrained: arguments of `resolve_source`; the toy world has its own.
        output: the prompts file.
        settings: the method ("coop" or "dualcoop") and its numbers.
        known: share of known labels, drawn independently per (picture, class).
        shots: pictures of each class, None for all.
        augment: one of `taidpt.features.augmented_pictures.AUGMENTATIONS`, or "none".
        cache: a folder for features, None for the user's cache folder.
        store: how pictures are shown, read and kept.
        device: "cpu", "cuda", or "auto" for a GPU where torch finds one.
        resume, restart: what to do with the checkpoint of an unfinished run.
        official_names: spell VOC's classes as published runs do, see `load_dataset`.
    """

    dataset: str
    output: Path
    root: Path | None = None
    split: str = "train"
    model: str | None = None
    pretrained: str | None = None
    settings: TuneSettings = field(default_factory=lambda: settings_of("dualcoop"))
    known: float = 1.0
    shots: int | None = None
    augment: str = "none"
    cache: Path | None = None
    store: StoreSettings = field(default_factory=StoreSettings)
    device: str = "auto"
    resume: bool = False
    restart: bool = False
    official_names: bool = False


def run_picture_job(job: PictureTuneJob, progress: Progress) -> TunedPrompts:
    """Encode, hide labels, tune and save.

    Raises:
        InputError: the data set, the model or the settings are invalid.
    """
    cache = job.cache or cache_folder()
    root, source = find_source(
        job.dataset, job.root, job.model, job.pretrained, cache, job.settings.seed
    )
    check_output(job.output, job.resume, job.restart)
    images = _images(job, root, progress)
    labels = torch.from_numpy(images.targets.astype(np.float32))
    labels = mask_labels(labels, job.known, job.settings.seed)
    clip = load(source).to(pick_device(job.device))
    pictures = _pictures(job, clip, images, progress)
    options = RunOptions(checkpoint_path(job.output), job.resume)
    prompts = tune_on_pictures(
        clip, images.tags.tags, pictures, labels, job.settings, options, progress
    )
    record = {"pictures_from": _record(job, images)}
    prompts = replace(
        prompts, picture=job.store.picture, provenance={**prompts.provenance, **record}
    )
    save_prompts(prompts, job.output)
    return prompts


def _images(job: PictureTuneJob, root: Path, progress: Progress) -> LabelledImages:
    """The pictures to tune on; notes classes that none of them shows."""
    images = load_dataset(job.dataset, root, job.split, job.official_names)
    if job.shots is not None:
        images = images.subset(few_shots(images.targets, job.shots, job.settings.seed))
    counts = (images.targets > 0).sum(axis=0).tolist()
    bare = [name for name, count in zip(images.classes, counts, strict=True) if not count]
    if bare:
        few = ", ".join(bare[:10]) + (", …" if len(bare) > 10 else "")
        progress.note(
            f"no picture of {images.name} shows {len(bare)} of {len(counts)} classes: {few}"
        )
    return images


def _pictures(
    job: PictureTuneJob, clip: ClipModel, images: LabelledImages, progress: Progress
) -> TunablePictures:
    if job.augment == "none":
        cache = job.cache or cache_folder()
        return store_features(clip, images, cache, job.store, progress)
    sized = job.store.picture.model(clip)
    return AugmentedPictures(sized, images, job.augment, job.settings.seed, job.store.workers)


def _record(job: PictureTuneJob, images: LabelledImages) -> dict[str, object]:
    return {
        "data_set": images.name,
        "known": job.known,
        "shots": job.shots,
        "augmentation": job.augment,
        "picture": asdict(job.store.picture),
    }

"""Evaluation of methods on a data set, from files to a table: `taidpt research eval --dataset`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache as cache_results
from pathlib import Path

from taidpt.clip.model import load
from taidpt.datasets import LabelledImages, load_dataset
from taidpt.datasets.coco import coco_captions, coco_folder, image_ids
from taidpt.datasets.defaults import find_source
from taidpt.datasets.openimages import narratives
from taidpt.encoders.picture_input import PictureInput
from taidpt.evaluation.comparison import MethodTable, compare_methods
from taidpt.evaluation.methods import (
    MethodInputs,
    check_methods,
    method_bank,
    methods_with_bank,
)
from taidpt.evaluation.patch_classifier import PiaaSettings
from taidpt.features.picture_store import StoreSettings, store_features
from taidpt.features.pictures import PictureFeatures
from taidpt.metrics import MapSettings
from taidpt.progress import Progress
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.user_folders import cache_folder
from taidpt.texts.captions import read_texts
from taidpt.texts.labels import LabelledText, balance_texts, label_texts
from taidpt.toyworld import assets
from taidpt.tuning.settings import TuneSettings
from taidpt.tuning.text_job import pick_device

__all__ = [
    "DatasetJob",
    "rate_of",
    "run_dataset_job",
    "text_stream",
]

# The paper evaluates NUS-WIDE with another temperature over patches, texts balanced to 1,000 a
# class, and another learning rate. The toy world's rate was chosen on its val pictures.
_TEMPERATURES = {"nuswide": 4.0, "nuswide-labelled": 4.0}
_RATES = {"nuswide": 1e-3, "nuswide-labelled": 1e-3, "toyworld": assets.TUNING_RATE}

# PIAA's numbers for data sets other than VOC2007.
_PIAA = {
    "coco2014": PiaaSettings(0.01, 80.0, 400.0),
    "nuswide": PiaaSettings(500.0, 10.0, 400.0),
}


@dataclass(frozen=True)
class DatasetJob:
    """Methods to evaluate on a data set.

    Attributes:
        dataset: one of `taidpt.datasets.DATASET_NAMES`.
        methods: see `taidpt.evaluation.methods`.
        split: "test"; the toy world also has "val".
        root: folder of the data sets; "toyworld" needs none.
        model, pretrained: as `resolve_source` takes them; "toyworld" has its own.
        texts: files of texts for methods made from texts.
        prompts: prompts files, each for the method that tuned it.
        cache: folder for features and prompts, None for the user's cache.
        tuning: training of "tai", "taidpt" and "linear" without a prompts file; None for the
            published settings with the data set's learning rate.
        seed: of that training, and of random weights.
        merge_weight: the local head's share.
        settings: which mAP.
        store: how pictures are cropped, read and stored; prompts tuned on pictures record their own
            size and crop.
        device: "cpu", "cuda", or "auto" for a GPU where torch finds one.
        banks: folder for METHOD.bank of each method with class rows, None to write none.
        text_source: "files" for `texts`; "coco-train2017" for the first caption of each picture
            below the root; "coco-train2017-no-leak" for the same without val2014's pictures;
            "narratives" for OpenImages' localized narratives below the root.
        official_names: spell VOC's classes as its annotations do, see `load_dataset`.
    """

    dataset: str
    methods: tuple[str, ...]
    root: Path | None = None
    model: str | None = None
    pretrained: str | None = None
    texts: tuple[Path, ...] = ()
    prompts: tuple[Path, ...] = ()
    cache: Path | None = None
    seed: int = 0
    tuning: TuneSettings | None = None
    split: str = "test"
    merge_weight: float = 0.5
    settings: MapSettings = field(default_factory=MapSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    banks: Path | None = None
    text_source: str = "files"
    device: str = "auto"
    official_names: bool = False


def run_dataset_job(job: DatasetJob, progress: Progress) -> MethodTable:
    """Encode the pictures once, score them with each method, and evaluate.

    Raises:
        InputError: a wrong data set, method, model or file; before the long work where possible.
    """
    check_methods(job.methods)
    cache = job.cache or cache_folder()
    root, source = find_source(job.dataset, job.root, job.model, job.pretrained, cache, job.seed)
    prompts = _prompts(job.prompts)
    cache.mkdir(parents=True, exist_ok=True)
    images = load_dataset(job.dataset, root, job.split, job.official_names)
    texts = list(_texts(job, images))
    clip = load(source).to(pick_device(job.device))
    inputs = MethodInputs(
        clip,
        images.tags,
        texts,
        prompts,
        picture=job.store.picture,
        temperature=_TEMPERATURES.get(job.dataset, 40.0),
        tuning=_tuning(job),
        scene=lambda picture: encoded(unlabelled(), picture),
        piaa=_PIAA.get(job.dataset, PiaaSettings()),
        keep=cache,
        progress=progress,
    )

    def encoded(pictures: LabelledImages, picture: PictureInput) -> PictureFeatures:
        settings = replace(job.store, picture=picture)
        return store_features(clip, pictures, cache, settings, progress)

    def unlabelled() -> LabelledImages:
        return load_dataset(job.dataset, root, "train", job.official_names)

    @cache_results
    def features(picture: PictureInput) -> PictureFeatures:
        return encoded(images, picture)

    found = compare_methods(job.methods, inputs, images, features, job.merge_weight, job.settings)
    if job.banks is not None:
        job.banks.mkdir(parents=True, exist_ok=True)
        for name in methods_with_bank(job.methods):
            method_bank(name, inputs, job.merge_weight).save(job.banks / f"{name}.bank")
    return found


def _tuning(job: DatasetJob) -> TuneSettings:
    if job.tuning is not None:
        return replace(job.tuning, seed=job.seed)
    return TuneSettings(seed=job.seed, lr=rate_of(job.dataset))


def rate_of(dataset: str) -> float:
    """The base learning rate of tuning on texts for a data set."""
    return _RATES.get(dataset, TuneSettings().lr)


def _texts(job: DatasetJob, images: LabelledImages) -> Iterator[LabelledText]:
    """Labelled texts; balanced for NUS-WIDE."""
    labelled = label_texts(text_stream(job), images.tags)
    if job.dataset in _TEMPERATURES:
        labelled = iter(balance_texts(list(labelled), len(images.tags)))
    yield from labelled


def text_stream(job: DatasetJob) -> Iterator[str]:
    """The texts of a job's methods, not labelled yet."""
    root = job.root or Path()
    if job.text_source == "narratives":
        yield from narratives(root)
    elif job.text_source == "files":
        own = (assets.path("tuning_captions.txt"),) if job.dataset == "toyworld" else ()
        for path in job.texts or own:
            yield from read_texts(path)
    else:
        name = "captions_train2017.json"
        path = coco_folder(root, name) / "annotations" / name
        leave_out: set[int] = set()
        if job.text_source == "coco-train2017-no-leak":
            test = "instances_val2014.json"
            leave_out = image_ids(coco_folder(root, test) / "annotations" / test)
        yield from coco_captions(path, leave_out=leave_out)


def _prompts(paths: tuple[Path, ...]) -> dict[str, TunedPrompts]:
    """Prompts by the method that tuned them."""
    found: dict[str, TunedPrompts] = {}
    for path in paths:
        prompts = TunedPrompts.load(path)
        method = str(prompts.provenance.get("method", "taidpt"))
        if method in found:
            raise InputError(f"{path}: a second prompts file of method {method!r}; give one each")
        found[method] = prompts
    return found

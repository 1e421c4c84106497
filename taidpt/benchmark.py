"""Methods on a data set, from files to a table: what `taidpt eval --dataset` does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from taidpt.captions import read_texts
from taidpt.clip import check_clip_source, load_clip
from taidpt.comparison import Comparison, compare_methods
from taidpt.datasets import LabelledImages, load_dataset
from taidpt.datasets.coco import coco_captions, coco_folder, image_ids
from taidpt.datasets.openimages import narratives
from taidpt.labels import balance_texts, label_texts
from taidpt.methods import Bench, LabelledText, check_methods, method_bank, methods_with_bank
from taidpt.metrics import MapSettings
from taidpt.picture_store import StoreSettings, store_features
from taidpt.progress import Progress
from taidpt.prompts import TunedPrompts
from taidpt.runtime.errors import InputError
from taidpt.toyworld import assets
from taidpt.tune_settings import TuneSettings

__all__ = ["BenchmarkJob", "default_cache", "run_benchmark", "text_stream"]

# NUS-WIDE differs: the paper's temperature over patches, texts balanced to 1,000 a class, and rate.
_TEMPERATURES = {"nuswide": 4.0, "nuswide-labelled": 4.0}
_RATES = {"nuswide": 1e-3, "nuswide-labelled": 1e-3, "toyworld": assets.TUNING_RATE}


@dataclass(frozen=True)
class BenchmarkJob:
    """Which methods on which data set.

    Attributes:
        dataset: one of `taidpt.datasets.DATASET_NAMES`.
        methods: see `taidpt.methods`.
        split: "test"; the toy world has "val" too.
        root: where the data sets lie; "toyworld" needs none.
        model, pretrained: as `load_clip` takes them; "toyworld" has its own.
        texts: files of texts for methods that are made from them.
        prompts: prompts files; each stands for the method that it was tuned by.
        cache: a folder for features and prompts, None for the user's own.
        seed, lr: of tuning where a method has no prompts file.
        merge_weight: the local head's share.
        settings: which mAP.
        store: precision and batch of the features.
        banks: a folder for METHOD.bank of each method that has class rows, None for none.
        text_source: "files" for `texts`; "coco-train2017" for the first caption of each picture
            below the root, "coco-train2017-no-leak" without those of val2014's pictures;
            "narratives" for OpenImages' localized narratives below the root.
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
    lr: float | None = None
    split: str = "test"
    merge_weight: float = 0.5
    settings: MapSettings = field(default_factory=MapSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    banks: Path | None = None
    text_source: str = "files"


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/taidpt`, or ~/.cache/taidpt."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taidpt"


def run_benchmark(job: BenchmarkJob, progress: Progress) -> Comparison:
    """Read, encode once, score with each method, evaluate.

    Raises:
        InputError: anything about the data set, the methods, the model or the files; as far as it
            can be told, before the long work.
    """
    check_methods(job.methods)
    job = _with_toyworld(job)
    if job.root is None or job.model is None or job.pretrained is None:
        raise InputError(f"data set {job.dataset!r} needs --root, --model and --pretrained")
    check_clip_source(job.model, job.pretrained)
    prompts = _prompts(job.prompts)
    cache = job.cache or default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    images = load_dataset(job.dataset, job.root, job.split)
    texts = list(_texts(job, images))
    clip = load_clip(job.model, job.pretrained, job.seed)
    features = store_features(clip, images, cache, job.store, progress)
    bench = Bench(
        clip,
        images.tags,
        texts,
        prompts,
        temperature=_TEMPERATURES.get(job.dataset, 40.0),
        tuning=_tuning(job),
        keep=cache,
        progress=progress,
    )
    found = compare_methods(job.methods, bench, images, features, job.merge_weight, job.settings)
    if job.banks is not None:
        job.banks.mkdir(parents=True, exist_ok=True)
        for name in methods_with_bank(job.methods):
            method_bank(name, bench, job.merge_weight).save(job.banks / f"{name}.bank")
    return found


def _with_toyworld(job: BenchmarkJob) -> BenchmarkJob:
    """The toy world brings its own pictures, model and texts."""
    if job.dataset != "toyworld":
        return job
    return replace(
        job,
        root=job.root or job.cache or default_cache(),
        model=job.model or "toyworld",
        pretrained=job.pretrained or "embedded",
        texts=job.texts or (assets.captions_path(),),
    )


def _tuning(job: BenchmarkJob) -> TuneSettings:
    rate = job.lr if job.lr is not None else _RATES.get(job.dataset)
    settings = TuneSettings(seed=job.seed)
    return settings if rate is None else replace(settings, lr=rate)


def _texts(job: BenchmarkJob, images: LabelledImages) -> Iterator[LabelledText]:
    """Labelled texts; those for NUS-WIDE balanced."""
    found = label_texts(text_stream(job), images.tags)
    if job.dataset in _TEMPERATURES:
        found = iter(balance_texts(list(found), len(images.tags)))
    yield from found


def text_stream(job: BenchmarkJob) -> Iterator[str]:
    """The texts that a job's methods are made from, not labelled yet."""
    root = job.root or Path()
    if job.text_source == "narratives":
        yield from narratives(root)
    elif job.text_source == "files":
        for path in job.texts:
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
    """Prompts by the method that they were tuned by."""
    found: dict[str, TunedPrompts] = {}
    for path in paths:
        prompts = TunedPrompts.load(path)
        method = str(prompts.provenance.get("method", "taidpt"))
        if method in found:
            raise InputError(f"{path}: a second prompts file of method {method!r}; give one each")
        found[method] = prompts
    return found

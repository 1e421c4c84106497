"""Recipes of published results: what is tuned on what, how it is evaluated, what was reported.

Only figures printed in papers are given. The toy world has a recipe for each method;
docs/benchmarks.md says how their learning rates were chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from taidpt.encoders.picture_input import PictureInput
from taidpt.prompts.prompts_file import PromptSettings
from taidpt.runtime.errors import InputError
from taidpt.toyworld import assets
from taidpt.tuning.settings import TuneSettings, settings_of

__all__ = ["RECIPES", "PictureRun", "Recipe", "find_recipe", "find_recipes"]

_PAPER = "Guo et al. 2023"
_SPARC = "SPARC, CVPR 2025, its authors' own run"
_ON_AUTHORS_SCORES = "on TaI-DPT's authors' own test scores"
_COMC = "CoMC, ICML 2024"
_PIAA = "PIAA, ICML 2026, on SCLIP's patches"
_OTHERS = "re-run by others"
_CONCEPTS = "concept vectors alone"
_RN50, _RN101, _VIT = "RN50-quickgelu", "RN101-quickgelu", "ViT-B-16-quickgelu"
_ADAPT_NOTE = (
    "the published figure is of PIAA's own read-out, in which classes compete; the rows of adapt "
    "go into a bundle, which scores each tag by itself"
)
_SAME_AS_VOC2007 = (
    "TaI-DPT uses no training pictures, so this computes exactly voc2007-taidpt; 83.75 cannot be "
    "met beside that recipe's 88.3"
)
_WITHOUT_TEXTS = (
    *("zsclip", "zsclip80", "clipdpt", "clipdpt80", "coop", "dualcoop", "adapt", "piaa"),
)
_KNOWN = tuple(range(10, 100, 10))


@dataclass(frozen=True)
class PictureRun:
    """How a recipe tunes prompts on pictures.

    Attributes:
        settings: the method and its numbers.
        known: share of known labels, 0 to 1.
        shots: pictures per class, None for all.
        augment: as in `tune-pictures`.
        picture: size and crop of pictures, in tuning and in evaluation.
        episodes: whether each seed uses an official few-shot episode of its own.
    """

    settings: TuneSettings
    known: float = 1.0
    shots: int | None = None
    augment: str = "crop"
    picture: PictureInput = PictureInput(448, "whole")
    episodes: bool = False


@dataclass(frozen=True)
class Recipe:
    """A published result, or one to compare with published ones.

    Attributes:
        dataset, model, pretrained: as `taidpt research eval --dataset` takes them.
        text_model: of an ensemble's text-tuned part, None for `model`.
        method: one of `taidpt.evaluation.methods`, or "ensemble": TaI-DPT with the prompts that
            `pictures` tunes.
        texts: a text source of `taidpt.evaluation.dataset_job`.
        column: the table's column to compare; None for the method's merged or only head.
        published: mAP in percent, None where nothing is published.
        source: who published it.
        picture: how pictures are shown in evaluation; picture-tuned prompts record their own.
        tuning: of the text-tuned part, None for the data set's own settings.
        pictures: how the picture-tuned part is tuned, None for none.
        rate: the picture-tuned share in an ensemble.
        note: what to know about the published figure.
    """

    dataset: str
    method: str
    model: str = _RN50
    pretrained: str | None = "openai"
    texts: str = "coco-train2017"
    column: str | None = None
    published: float | None = None
    source: str = ""
    picture: PictureInput = PictureInput()
    tuning: TuneSettings | None = None
    pictures: PictureRun | None = None
    rate: float = 0.9
    text_model: str | None = None
    note: str = ""

    @property
    def has_texts(self) -> bool:
        """Whether any part of it is made from texts."""
        return self.method not in _WITHOUT_TEXTS


def find_recipe(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        InputError: an unknown name.
    """
    return RECIPES[find_recipes(name)[0]]


def find_recipes(pattern: str) -> list[str]:
    """Names of recipes by a name or a pattern such as "toyworld-*".

    Raises:
        InputError: no recipe matches.
    """
    found = [name for name in RECIPES if fnmatchcase(name, pattern)]
    if not found:
        close = [known for known in RECIPES if known.startswith(pattern.partition("-")[0])]
        raise InputError(f"no recipe {pattern!r}; there are {', '.join(close or RECIPES)}")
    return found


def _dualcoop(known: int, dataset: str) -> PictureRun:
    """DualCoOp as its authors ran it, with this percentage of known labels."""
    settings = settings_of("dualcoop")
    if dataset == "nuswide":
        settings = replace(settings, batch=192)
    return PictureRun(settings, known / 100)


def _text_tuned() -> Iterator[tuple[str, Recipe]]:
    yield from {
        "voc2007-zsclip": Recipe("voc2007", "zsclip", published=75.9, source=_OTHERS),
        "voc2007-clipdpt": Recipe("voc2007", "clipdpt"),
        "voc2007-tai": Recipe("voc2007", "tai", column="global"),
        "voc2007-taidpt": Recipe("voc2007", "taidpt", published=88.3, source=_PAPER),
        "voc2007-taidpt-center": Recipe(
            "voc2007", "taidpt", column="center", published=88.6, source=_ON_AUTHORS_SCORES
        ),
        "voc2007-taidpt-log_softmax": Recipe(
            "voc2007", "taidpt", column="log_softmax:4", published=88.9, source=_ON_AUTHORS_SCORES
        ),
        "voc2007-taidpt-rn101": Recipe("voc2007", "taidpt", _RN101, published=88.9, source=_PAPER),
        "voc2007-linear": Recipe("voc2007", "linear"),
        "voc2007-centroids-rn101": Recipe(
            "voc2007", "centroids", _RN101, published=83.9, source=_CONCEPTS
        ),
        "coco2014-zsclip": Recipe("coco2014", "zsclip", published=47.5, source=_OTHERS),
        "coco2014-clipdpt": Recipe("coco2014", "clipdpt"),
        "coco2014-tai": Recipe("coco2014", "tai", column="global"),
        "coco2014-taidpt": Recipe("coco2014", "taidpt", published=65.1, source=_SPARC),
        "coco2014-taidpt-rn101": Recipe(
            "coco2014", "taidpt", _RN101, published=68.0, source=_PAPER
        ),
        "coco2014-linear": Recipe("coco2014", "linear", published=68.8, source=_COMC),
        "coco2014-centroids-rn101": Recipe(
            "coco2014", "centroids", _RN101, published=61.5, source=_CONCEPTS
        ),
        "nuswide-taidpt": Recipe(
            "nuswide", "taidpt", texts="narratives", published=46.5, source=_PAPER
        ),
        "nuswide-taidpt-rn101": Recipe(
            "nuswide", "taidpt", _RN101, texts="narratives", published=46.5, source=_PAPER
        ),
        "coco-48-17-taidpt": Recipe("coco-48-17", "taidpt"),
    }.items()


def _adapted() -> Iterator[tuple[str, Recipe]]:
    """The unlabelled train split teaches: `taidpt adapt`, and PIAA as published."""
    branch = PictureInput(local_branch="self")
    for dataset, figure in (("voc2007", 91.7), ("coco2014", 73.0), ("nuswide", 49.2)):
        piaa = Recipe(dataset, "piaa", _VIT, published=figure, source=_PIAA, picture=branch)
        yield f"{dataset}-piaa", piaa
        yield f"{dataset}-adapt", replace(piaa, method="adapt", note=_ADAPT_NOTE)


def _partial_labels() -> Iterator[tuple[str, Recipe]]:
    published = {("voc2007", 10): 93.3, ("coco2014", 10): 81.5}
    for dataset in ("voc2007", "coco2014", "nuswide"):
        texts = "narratives" if dataset == "nuswide" else "coco-train2017"
        for known in _KNOWN:
            pictures = _dualcoop(known, dataset)
            yield (
                f"{dataset}-dualcoop-{known}",
                Recipe(dataset, "dualcoop", _RN101, pictures=pictures),
            )
            figure = published.get((dataset, known))
            yield (
                f"{dataset}-ensemble-{known}",
                Recipe(
                    dataset,
                    "ensemble",
                    _RN101,
                    texts=texts,
                    published=figure,
                    source=_PAPER if figure else "",
                    pictures=pictures,
                    text_model=_RN50,
                ),
            )


def _few_and_long_tailed() -> Iterator[tuple[str, Recipe]]:
    """LaSO's 16 novel classes from official episodes; head, medium and tail classes."""
    novel = Recipe("coco-laso-1", "taidpt", published=59.2, source=_PAPER)
    yield "coco-novel-taidpt", novel
    for shots in (1, 5):
        dual = replace(_dualcoop(100, "coco"), episodes=True)
        coop = PictureRun(settings_of("coop"), picture=PictureInput(), episodes=True)
        base = Recipe(
            f"coco-laso-{shots}", "ensemble", _RN101, pictures=dual, rate=0.6, text_model=_RN50
        )
        yield f"coco-novel-ensemble-{shots}-shot", base
        yield f"coco-novel-dualcoop-{shots}-shot", replace(base, method="dualcoop", text_model=None)
        yield (
            f"coco-novel-coop-{shots}-shot",
            replace(base, method="coop", model=_RN50, pictures=coop, text_model=None),
        )
    unseen = replace(settings_of("dualcoop"), prompt=PromptSettings())  # a context for any name
    yield (
        "coco-48-17-dualcoop",
        Recipe("coco-48-17", "dualcoop", _RN101, pictures=PictureRun(unseen)),
    )
    notes = {"voc-mlt": _SAME_AS_VOC2007}
    for dataset, figure in (("voc-mlt", 83.75), ("coco-mlt", 56.23)):
        tuned = Recipe(
            dataset,
            "taidpt",
            published=figure,
            source="another work's run of TaI-DPT",
            note=notes.get(dataset, ""),
        )
        yield f"{dataset}-taidpt", tuned
        pictures = _dualcoop(100, dataset)
        yield f"{dataset}-dualcoop", Recipe(dataset, "dualcoop", _RN101, pictures=pictures)
        yield (
            f"{dataset}-ensemble",
            Recipe(dataset, "ensemble", _RN101, pictures=pictures, text_model=_RN50),
        )


# Best of several rates on the toy world's val pictures (docs/benchmarks.md); all other recipes use
# the demo's rate.
_TOY_RATES = {
    "taidpt-front": 3e-4,
    "taidpt-specific": 3e-3,
    "taidpt-asymmetric": 3e-5,
    "taidpt-bce": 1e-5,
    "taidpt-focal": 3e-5,
    "dualcoop-10": 1e-2,
    "dualcoop-90": 3e-4,
    "dualcoop-5-shot": 1e-3,
}


def _toy_world() -> Iterator[tuple[str, Recipe]]:
    base = Recipe("toyworld", "taidpt", "toyworld", "embedded", texts="files")
    for method in (*_WITHOUT_TEXTS[:4], "adapt", "piaa", "centroids", "linear"):
        yield f"toyworld-{method}", replace(base, method=method)
    shapes = {
        "tai": TuneSettings("tai"),
        "taidpt": TuneSettings(),
        "taidpt-middle": TuneSettings(prompt=PromptSettings(name_position="middle")),
        "taidpt-front": TuneSettings(prompt=PromptSettings(name_position="front")),
        "taidpt-specific": TuneSettings(prompt=PromptSettings(class_specific=True)),
        "taidpt-asymmetric": TuneSettings(loss="asymmetric"),
        "taidpt-bce": TuneSettings(loss="bce"),
        "taidpt-focal": TuneSettings(loss="focal"),
    }
    for name, settings in shapes.items():
        tuning = replace(settings, lr=_TOY_RATES.get(name, assets.TUNING_RATE))
        column = "global" if settings.method == "tai" else None
        yield (
            f"toyworld-{name}",
            replace(base, method=settings.method, column=column, tuning=tuning),
        )
    tuned = replace(TuneSettings(), lr=_TOY_RATES.get("taidpt", assets.TUNING_RATE))
    for column in ("center", "log_softmax"):
        yield f"toyworld-taidpt-{column}", replace(base, column=column, tuning=tuned)
    for method in ("adapt-taidpt", "taidpt+linear", "taidpt+centroids", "taidpt+centroids+linear"):
        yield f"toyworld-{method}", replace(base, method=method, tuning=tuned)
    for name, run in _toy_pictures():
        yield f"toyworld-{name}", replace(base, method=run.settings.method, pictures=run)
    for name, run in _toy_pictures():
        if name.startswith("dualcoop"):
            part = name.removeprefix("dualcoop-")
            rate = 0.6 if run.shots else 0.9
            changes = {"method": "ensemble", "tuning": tuned, "pictures": run, "rate": rate}
            yield f"toyworld-ensemble-{part}", replace(base, **changes)  # type: ignore[arg-type]


def _toy_pictures() -> Iterator[tuple[str, PictureRun]]:
    kinds: dict[str, tuple[str, float, int | None]] = {
        "coop-1-shot": ("coop", 1.0, 1),
        "coop-5-shot": ("coop", 1.0, 5),
        "coop": ("coop", 1.0, None),
        "dualcoop-10": ("dualcoop", 0.1, None),
        "dualcoop-90": ("dualcoop", 0.9, None),
        "dualcoop-5-shot": ("dualcoop", 1.0, 5),
    }
    for name, (method, known, shots) in kinds.items():
        published = settings_of(method)
        settings = replace(published, lr=_TOY_RATES.get(name, published.lr))
        yield name, PictureRun(settings, known, shots, "none", PictureInput())


RECIPES: dict[str, Recipe] = {
    **dict(_text_tuned()),
    **dict(_adapted()),
    **dict(_partial_labels()),
    **dict(_few_and_long_tailed()),
    **dict(_toy_world()),
}

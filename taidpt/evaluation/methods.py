"""Every method as class rows for one set of pictures: no method has scores of its own.

| name | what it is |
|---|---|
| `zsclip`, `zsclip80` | CLIP as it comes, with the plain template or the 80 of ImageNet |
| `clipdpt`, `clipdpt80` | the same with position-free pooling and the local branch |
| `tai`, `taidpt`, `coop`, `dualcoop` | tuned prompts: a file; the first two also from texts |
| `centroids`, `linear` | a mean caption, or a text-only linear head (`text_only_heads`) |
| `a+b` | the mean of two or more of these as one bank |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from taidpt import __version__
from taidpt.clip.model import ClipModel
from taidpt.encoders.picture_input import PictureInput
from taidpt.evaluation.text_only_heads import (
    ClassRows,
    LinearSettings,
    average_rows,
    concept_centroids,
    linear_head,
)
from taidpt.features.caption_features import encode_captions
from taidpt.features.picture_store import StoredFeatures
from taidpt.features.prompt_encoder import class_embeddings, plain_class_embeddings
from taidpt.features.zero_shot import PictureFeatures
from taidpt.kernels.local_similarity import local_similarity
from taidpt.progress import Progress, SilentProgress
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.errors import InputError
from taidpt.scores import SCORE_SCALE, Scoring, dual_scores
from taidpt.texts.labels import LabelledText
from taidpt.texts.tags import TagSet
from taidpt.texts.templates import PLAIN_TEMPLATE, ensemble_templates
from taidpt.tuning.settings import RunOptions, TuneSettings
from taidpt.tuning.tuner import tune

__all__ = [
    "METHOD_NAMES",
    "HeadScores",
    "MethodInputs",
    "check_methods",
    "method_bank",
    "methods_with_bank",
    "score_method",
]

HeadScores = dict[str, npt.NDArray[Any]]

_TEMPLATES: dict[str, Callable[[], Sequence[str]]] = {
    "": lambda: (PLAIN_TEMPLATE,),
    "80": ensemble_templates,
}
_TUNED = ("tai", "taidpt", "coop", "dualcoop")
_ALONE = ("zsclip", "zsclip80", "dualcoop")
_WHY_NO_BANK = {
    "zsclip": "it pools with positions, which no exported graph does: clipdpt exports",
    "zsclip80": "it pools with positions, which no exported graph does: clipdpt80 exports",
    "dualcoop": "export its prompts file itself",
}
METHOD_NAMES = ("zsclip", "zsclip80", "clipdpt", "clipdpt80", *_TUNED, "centroids", "linear")


@dataclass(eq=False)
class MethodInputs:
    """What methods are built from.

    Attributes:
        clip: the model.
        tags: C classes, in the order of the targets.
        texts: labelled texts, for the methods that need some.
        prompts: tuned prompts by method.
        picture: what of a picture methods are shown, unless their prompts were tuned otherwise.
        temperature: sharpness of the local weights over patches.
        tuning: how "tai" and "taidpt" are tuned where no prompts are given.
        keep: a folder for prompts tuned here and caption features, None to keep none.
        progress: told of long work.
        made: class rows by method, so that `a` and `a+b` make `a` once.
        used: the prompts that were used, given or tuned here.
    """

    clip: ClipModel
    tags: TagSet
    texts: Sequence[LabelledText] = ()
    prompts: Mapping[str, TunedPrompts] = field(default_factory=dict)
    picture: PictureInput = PictureInput()
    temperature: float = 40.0
    tuning: TuneSettings = field(default_factory=TuneSettings)
    keep: Path | None = None
    progress: Progress = field(default_factory=SilentProgress)
    made: dict[str, ClassRows] = field(default_factory=dict)
    used: dict[str, TunedPrompts] = field(default_factory=dict)

    @cached_property
    def captions(self) -> Tensor:
        """Unit rows of the texts, [N, D].

        Raises:
            InputError: there are no texts.
        """
        if not self.texts:
            raise InputError("this method is made from texts: give --texts FILE")
        texts = [text for text, _ in self.texts]
        self.progress.start("Encoding texts", len(texts))
        features = encode_captions(
            self.clip, texts, self.keep, progress=self.progress.advance
        ).pooled
        return torch.from_numpy(np.array(features, np.float32))

    def picture_of(self, name: str) -> PictureInput:
        """What of a picture a method is shown.

        Raises:
            InputError: it is a mean of methods that are shown different things.
        """
        prompts = [self.prompts.get(part) for part in name.split("+")]
        found = {(given and given.picture) or self.picture for given in prompts}
        if len(found) > 1:
            raise InputError(f"method {name!r}: its parts were tuned on pictures of unequal size")
        return found.pop()

    @property
    def labels(self) -> list[Sequence[int]]:
        """The classes that each text names."""
        return [labels for _, labels in self.texts]

    def templates(self, kind: str = "") -> Tensor:
        """Unit rows [C, D] of the plain template, or of the "80"."""
        rows = plain_class_embeddings(self.clip, self.tags.names, _TEMPLATES[kind]())
        return rows.cpu()


def check_methods(names: Sequence[str]) -> None:
    """Raise InputError unless each is a method, or methods of two heads joined by "+"."""
    if not names:
        raise InputError(f"no methods: give some of {', '.join(METHOD_NAMES)}")
    for name in names:
        for part in name.split("+"):
            alone = "+" in name and part in _ALONE
            if part not in METHOD_NAMES or alone:
                what = "cannot be averaged" if alone else "is not known"
                raise InputError(
                    f"method {part!r} {what}: expected some of {', '.join(METHOD_NAMES)}, or a+b"
                )


def score_method(name: str, inputs: MethodInputs, features: StoredFeatures) -> HeadScores:
    """Scores of every picture by a method.

    Args:
        name: one of METHOD_NAMES, or several joined by "+".
        inputs: what it is built from.
        features: of N pictures.
    Returns:
        "global" and, where the method has a local head, "local", each [N, C].
    Raises:
        InputError: there is no such method, or what it needs is not given.
    """
    if name in ("zsclip", "zsclip80"):
        if features.zero_shot is None:
            raise InputError(f"{name} pools with positions: it takes the model's own size alone")
        rows = inputs.templates(name.removeprefix("zsclip"))
        return _gather(
            {"global": SCORE_SCALE * batch.zero_shot @ rows.T}
            for batch in features.batches()
            if batch.zero_shot is not None
        )
    if name == "dualcoop":
        return _dual(_prompts("dualcoop", inputs), inputs, features)
    rows_of = _rows(name, inputs)
    return _gather(_score(rows_of, batch, inputs.temperature) for batch in features.batches())


def methods_with_bank(names: Sequence[str]) -> list[str]:
    """Those of some methods that `method_bank` takes."""
    return [name for name in names if name not in _WHY_NO_BANK]


def method_bank(name: str, inputs: MethodInputs, merge_weight: float = 0.5) -> ClassBank:
    """A method's class rows as a bank that `taidpt-export` turns into a bundle.

    Args:
        name: a method of two heads, or several joined by "+".
        inputs: what it is built from.
        merge_weight: the local head's share.
    Raises:
        InputError: the method has no such rows, or what it needs is not given.
    """
    if name in _WHY_NO_BANK:
        raise InputError(f"method {name!r} has no bank: {_WHY_NO_BANK[name]}")
    scoring = Scoring(inputs.temperature, merge_weight)
    metadata = {
        "model": inputs.clip.identity(),
        "scoring": asdict(scoring),
        "picture": asdict(inputs.picture_of(name)),
        "method": name,
    }
    return replace(_rows(name, inputs).bank(inputs.tags.names), metadata=metadata)


def _rows(name: str, inputs: MethodInputs) -> ClassRows:
    if name not in inputs.made:
        inputs.made[name] = _make_rows(name, inputs)
    return inputs.made[name]


def _make_rows(name: str, inputs: MethodInputs) -> ClassRows:
    if "+" in name:
        return average_rows([_rows(part, inputs) for part in name.split("+")])
    if name in ("clipdpt", "clipdpt80"):
        return ClassRows.of(inputs.templates(name.removeprefix("clipdpt")))
    if name == "centroids":
        return concept_centroids(inputs.captions, inputs.labels, inputs.templates())
    if name == "linear":
        settings = LinearSettings(seed=inputs.tuning.seed)
        return linear_head(inputs.captions, inputs.labels, inputs.templates(), settings)
    if name in ("tai", "taidpt", "coop"):
        return _tuned_rows(_prompts(name, inputs), inputs)
    raise InputError(f"method {name!r} has no class rows: see check_methods")


def _tuned_rows(prompts: TunedPrompts, inputs: MethodInputs) -> ClassRows:
    rows = _embed(prompts, inputs)
    return ClassRows.of(rows["global"], rows.get("local"))


def _prompts(name: str, inputs: MethodInputs) -> TunedPrompts:
    """The given prompts of a method, or ones tuned now on the texts."""
    if name not in inputs.used:
        inputs.used[name] = inputs.prompts.get(name) or _tune(name, inputs)
    return inputs.used[name]


def _tune(name: str, inputs: MethodInputs) -> TunedPrompts:
    if name not in ("tai", "taidpt") or not inputs.texts:
        how = "--texts FILE or --prompts FILE" if name in ("tai", "taidpt") else "--prompts FILE"
        raise InputError(f"method {name!r} has no prompts: give {how}")
    settings = replace(inputs.tuning, method=name)
    kept = None if inputs.keep is None else inputs.keep / "prompts" / _kept_name(settings, inputs)
    if kept is not None and kept.exists():
        inputs.progress.note(f"prompts of an earlier run: {kept}")
        return TunedPrompts.load(kept)
    options = RunOptions(cache=inputs.keep)
    prompts = tune(inputs.clip, inputs.tags.tags, inputs.texts, settings, options, inputs.progress)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        prompts.save(kept)
    return prompts


def _kept_name(settings: TuneSettings, inputs: MethodInputs) -> str:
    """Names what decides the prompts: version, model, tags, texts and settings."""
    texts = [[text, list(labels)] for text, labels in inputs.texts]
    identity = [__version__, inputs.clip.weights_sha256, inputs.tags.names, asdict(settings), texts]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return f"{settings.method}-seed{settings.seed}-{digest[:16]}.safetensors"


def _embed(prompts: TunedPrompts, inputs: MethodInputs) -> dict[str, Tensor]:
    """Class embeddings by context, in the order of the inputs's classes.

    A context of all tags serves classes that it was not tuned with, which is said; one of each
    tag's own cannot.
    """
    prompts.check_model(inputs.clip)
    names, missing = (
        prompts.names,
        [name for name in inputs.tags.names if name not in prompts.names],
    )
    if missing and prompts.settings.class_specific:
        raise InputError(
            f"the prompts know no {', '.join(missing[:5])}: each tag has a context of its own, and "
            "they were tuned for other tags than the data set's classes"
        )
    if missing:
        names = inputs.tags.names
        inputs.progress.note(
            f"{len(missing)} of {len(names)} classes were not tuned with, the shared context "
            f"serves them too: {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}"
        )
    order = [names.index(name) for name in inputs.tags.names]
    position = prompts.settings.name_position
    found = class_embeddings(inputs.clip, names, prompts.contexts, position)
    return {name: rows.cpu()[order] for name, rows in found.items()}


def _score(rows: ClassRows, batch: PictureFeatures, temperature: float) -> dict[str, Tensor]:
    whole = batch.global_features @ rows.global_rows.T
    parts = local_similarity(batch.patch_features, rows.local_rows, temperature)
    return {
        "global": rows.scale * whole + rows.bias,
        "local": rows.scale * parts + rows.bias,
    }


def _dual(prompts: TunedPrompts, inputs: MethodInputs, features: StoredFeatures) -> HeadScores:
    """DualCoOp has one head, over patches."""
    rows = _embed(prompts, inputs)
    temperature = torch.tensor(prompts.scoring.temperature)
    return _gather(
        {
            "global": prompts.scoring.scale
            * dual_scores(batch.patch_features, rows["positive"], rows["negative"], temperature)
        }
        for batch in features.batches()
    )


def _gather(batches: Any) -> HeadScores:
    parts: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for batch in batches:
            for head, scores in batch.items():
                parts.setdefault(head, []).append(scores)
    return {head: torch.cat(scores).numpy() for head, scores in parts.items()}

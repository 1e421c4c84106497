"""The methods that are compared on a data set, each as class rows that score pictures.

| name | method |
|---|---|
| `zsclip`, `zsclip80` | zero-shot CLIP with the plain template, or with ImageNet's 80 |
| `clipdpt`, `clipdpt80` | the same with position-free pooling and the local branch |
| `tai`, `taidpt`, `coop`, `dualcoop` | tuned prompts: a file, or for the first two texts |
| `centroids`, `linear` | mean caption features, or a linear head on them |
| `adapt`, `adapt-taidpt` | `clipdpt` or `taidpt`, adapted to the unlabelled train split |
| `piaa` | PIAA as published: a patch classifier of that split, classes compete |
| `a+b` | the mean of the class rows of two or more methods |
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
from taidpt.evaluation.patch_classifier import PiaaSettings, learn_patches, piaa_scores
from taidpt.evaluation.text_only_heads import (
    ClassRows,
    LinearSettings,
    average_rows,
    concept_centroids,
    linear_head,
)
from taidpt.features.caption_features import encode_captions
from taidpt.features.pictures import PictureFeatures
from taidpt.features.prompt_encoder import class_embeddings, plain_class_embeddings
from taidpt.progress import Progress, SilentProgress
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.adapting.scene_rows import adapt_bank
from taidpt.runtime.adapting.similarity import Features
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.errors import InputError
from taidpt.scores import Scoring, dual_scores, global_scores
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
_ALONE = ("zsclip", "zsclip80", "dualcoop", "piaa")
_ADAPTED = {"adapt": "clipdpt", "adapt-taidpt": "taidpt"}
# As many frames as `taidpt adapt` takes by default.
_SCENE_PICTURES = 500
_WHY_NO_BANK = {
    "zsclip": "it pools with positions, which no exported graph does: clipdpt exports",
    "zsclip80": "it pools with positions, which no exported graph does: clipdpt80 exports",
    "dualcoop": "export its prompts file itself",
    "piaa": "its classes compete within each patch, which no bundle does: adapt exports",
}
METHOD_NAMES = (
    *("zsclip", "zsclip80", "clipdpt", "clipdpt80", *_TUNED, "centroids", "linear"),
    *(*_ADAPTED, "piaa"),
)


@dataclass(eq=False)
class MethodInputs:
    """What methods are built from.

    Attributes:
        clip: the model.
        tags: C classes, in the order of the targets.
        texts: labelled texts, for the methods that need some.
        prompts: tuned prompts by method.
        picture: size and crop of pictures, for methods whose prompts record none.
        temperature: sharpness of the local weights over patches.
        tuning: how "tai" and "taidpt" are tuned where no prompts are given.
        scene: features of the unlabelled train split, for methods that adapt to it.
        piaa: the numbers of "piaa".
        keep: folder for prompts tuned here and for caption features; None keeps nothing.
        progress: reports long work.
        rows: class rows computed so far, by method, so that `a` and `a+b` share those of `a`.
        templated: rows of templates encoded so far, by kind: six methods share the plain ones.
        used: the prompts used so far, given or tuned here, by method.
    """

    clip: ClipModel
    tags: TagSet
    texts: Sequence[LabelledText] = ()
    prompts: Mapping[str, TunedPrompts] = field(default_factory=dict)
    picture: PictureInput = PictureInput()
    temperature: float = 40.0
    tuning: TuneSettings = field(default_factory=TuneSettings)
    scene: Callable[[PictureInput], PictureFeatures] | None = None
    piaa: PiaaSettings = field(default_factory=PiaaSettings)
    keep: Path | None = None
    progress: Progress = field(default_factory=SilentProgress)
    rows: dict[str, ClassRows] = field(default_factory=dict)
    templated: dict[str, Tensor] = field(default_factory=dict)
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
        features = encode_captions(self.clip, texts, self.keep, progress=self.progress.advance)
        return torch.from_numpy(np.array(features.pooled[features.places], np.float32))

    def picture_of(self, name: str) -> PictureInput:
        """Size and crop of the pictures that a method scores.

        Raises:
            InputError: it is a mean of methods that differ in this.
        """
        prompts = [self.prompts.get(part) for part in name.split("+")]
        inputs = {(part and part.picture) or self.picture for part in prompts}
        if len(inputs) > 1:
            raise InputError(f"method {name!r}: its parts were tuned on pictures of unequal size")
        return inputs.pop()

    @cached_property
    def unlabelled(self) -> PictureFeatures:
        """Features of the train split; its labels are not read.

        Raises:
            InputError: there is none.
        """
        if self.scene is None:
            raise InputError("this method adapts to the data set's train split: it has none")
        return self.scene(self.picture)

    @property
    def labels(self) -> list[Sequence[int]]:
        """The classes that each text names."""
        return [labels for _, labels in self.texts]

    def templates(self, kind: str = "") -> Tensor:
        """Unit rows [C, D] of the plain template, or of ImageNet's templates for "80"."""
        if kind not in self.templated:
            rows = plain_class_embeddings(self.clip, self.tags.names, _TEMPLATES[kind]())
            self.templated[kind] = rows.cpu()
        return self.templated[kind]


def check_methods(names: Sequence[str]) -> None:
    """Raise InputError unless each name is a method, or two-headed methods joined by "+"."""
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


def score_method(name: str, inputs: MethodInputs, features: PictureFeatures) -> HeadScores:
    """Scores of every picture by a method.

    Args:
        name: one of METHOD_NAMES, or several joined by "+".
        inputs: what it is built from.
        features: of N pictures.
    Returns:
        "global" and, where the method has a local head, "local", each [N, C].
    Raises:
        InputError: an unknown method, or one whose texts or prompts are missing.
    """
    if name in ("zsclip", "zsclip80"):
        if features.zero_shot is None:
            raise InputError(f"{name} pools with positions: it takes the model's own size alone")
        rows = inputs.templates(name.removeprefix("zsclip"))
        return _gather(
            {"global": global_scores(batch.zero_shot, rows)}
            for batch in features.batches()
            if batch.zero_shot is not None
        )
    if name == "piaa":
        rows = inputs.templates()
        learnt = learn_patches(inputs.unlabelled, rows, inputs.piaa)
        return _gather(
            {"global": piaa_scores(batch, rows, learnt, inputs.piaa)}
            for batch in features.batches()
        )
    if name == "dualcoop":
        return _dual(_prompts("dualcoop", inputs), inputs, features)
    class_rows = _rows(name, inputs)
    return _gather(
        class_rows.scores(batch.global_features, batch.patch_features, inputs.temperature)
        for batch in features.batches()
    )


def methods_with_bank(names: Sequence[str]) -> list[str]:
    """The methods among these that `method_bank` accepts."""
    return [name for name in names if name not in _WHY_NO_BANK]


def method_bank(name: str, inputs: MethodInputs, merge_weight: float = 0.5) -> ClassBank:
    """A method's class rows as a bank, which `taidpt-export` turns into a bundle.

    Args:
        name: a method of two heads, or several joined by "+".
        inputs: what it is built from.
        merge_weight: the local head's share.
    Raises:
        InputError: the method has no class rows, or its texts or prompts are missing.
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
    if name not in inputs.rows:
        inputs.rows[name] = _compute_rows(name, inputs)
    return inputs.rows[name]


def _compute_rows(name: str, inputs: MethodInputs) -> ClassRows:
    if "+" in name:
        return average_rows([_rows(part, inputs) for part in name.split("+")])
    if name in ("clipdpt", "clipdpt80"):
        return ClassRows.of(inputs.templates(name.removeprefix("clipdpt")))
    if name in _ADAPTED:
        return _adapted(_rows(_ADAPTED[name], inputs), inputs)
    if name == "centroids":
        return concept_centroids(inputs.captions, inputs.labels, inputs.templates())
    if name == "linear":
        settings = LinearSettings(seed=inputs.tuning.seed)
        return linear_head(inputs.captions, inputs.labels, inputs.templates(), settings)
    if name in ("tai", "taidpt", "coop"):
        rows = _embed(_prompts(name, inputs), inputs)
        return ClassRows.of(rows["global"], rows.get("local"))
    raise InputError(f"method {name!r} has no class rows: see check_methods")


def _adapted(rows: ClassRows, inputs: MethodInputs) -> ClassRows:
    """Rows as `taidpt adapt` makes them from pictures of the train split, evenly spaced."""
    scene = inputs.unlabelled
    chosen = np.linspace(0, len(scene) - 1, min(len(scene), _SCENE_PICTURES)).round().astype(int)
    frames = Features(
        scene.global_features[chosen].float().numpy(), scene.patch_features[chosen].numpy()
    )
    found = adapt_bank(rows.bank(inputs.tags.names), frames, Scoring(inputs.temperature))
    count = sum(tag.changed for tag in found.tags)
    inputs.progress.note(f"adapted {count} of {len(found.tags)} classes, weight {found.weight:.3g}")
    arrays = ("global_embeddings", "local_embeddings", "scale", "bias")
    return ClassRows(*(torch.from_numpy(np.array(getattr(found.bank, name))) for name in arrays))


def _prompts(name: str, inputs: MethodInputs) -> TunedPrompts:
    """The given prompts of a method, or prompts tuned now on the texts."""
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
    """A file name that depends on all that decides the prompts."""
    texts = [[text, list(labels)] for text, labels in inputs.texts]
    identity = [__version__, inputs.clip.weights_sha256, inputs.tags.names, asdict(settings), texts]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return f"{settings.method}-seed{settings.seed}-{digest[:16]}.safetensors"


def _embed(prompts: TunedPrompts, inputs: MethodInputs) -> dict[str, Tensor]:
    """Class embeddings by context, in the order of the inputs' classes.

    A shared context also embeds classes that it was not tuned with, with a note; a class-specific
    one cannot.
    """
    prompts.check_model(inputs.clip)
    names, missing = (
        prompts.names,
        [name for name in inputs.tags.names if name not in prompts.names],
    )
    if missing and prompts.settings.class_specific:
        raise InputError(
            f"the prompts have no {', '.join(missing[:5])}: their contexts are class-specific, and "
            "they were tuned for other tags than the data set's classes"
        )
    if missing:
        names = inputs.tags.names
        inputs.progress.note(
            f"{len(missing)} of {len(names)} classes were not among the tuned tags and use the "
            f"shared context: {', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}"
        )
    order = [names.index(name) for name in inputs.tags.names]
    position = prompts.settings.name_position
    found = class_embeddings(inputs.clip, names, prompts.contexts, position)
    return {name: rows.cpu()[order] for name, rows in found.items()}


def _dual(prompts: TunedPrompts, inputs: MethodInputs, features: PictureFeatures) -> HeadScores:
    """DualCoOp's scores: one head, over patches."""
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

"""Prompt tuning on texts (TaI, TaI-DPT) and on picture features (CoOp, DualCoOp).

On texts, a caption takes the place of a picture: its end token is the global feature, its tokens
are the patches. Source: Guo et al. 2023, section 3; schedule and settings are the authors'. One
loop tunes all methods, which differ in their training data and their objective.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from taidpt import __version__
from taidpt.clip.model import ClipModel
from taidpt.encoders.local_branch import image_encoder
from taidpt.features.caption_features import CaptionFeatures, encode_captions, texts_sha256
from taidpt.features.made_up_pictures import made_up_features
from taidpt.features.prompt_encoder import PromptEncoder
from taidpt.progress import Progress, SilentProgress
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.prompts.tokens import tokenize_prompts
from taidpt.runtime.errors import InputError
from taidpt.scores import merged_scores
from taidpt.text_thresholds import TextTag, tags_from_texts
from taidpt.texts.tags import Tag
from taidpt.texts.templates import template_texts
from taidpt.tuning.held_out import split_held_out
from taidpt.tuning.loop import Material, TuningLoop
from taidpt.tuning.objectives import DualObjective, HeadsObjective, Objective
from taidpt.tuning.picture_features import TunablePictures
from taidpt.tuning.settings import RunOptions, TuneSettings

__all__ = ["LabelledText", "TextRun", "tune", "tune_on_pictures"]

LabelledText = tuple[str, Sequence[int]]


def tune(
    clip: ClipModel,
    tags: Sequence[Tag],
    texts: Sequence[LabelledText],
    settings: TuneSettings | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
    background: Sequence[Tag] = (),
) -> TunedPrompts:
    """Tune prompts for tags on texts alone.

    Args:
        clip: a frozen CLIP.
        tags: C tags.
        texts: pairs of a text and the indices of the tags it names; template texts of every tag
            are added.
        settings: the method ("taidpt" or "tai") and its numbers.
        options: files and display.
        progress: receives loss and steps.
        background: further tags that compete in tuning and are not in the result; texts name
            them by the indices from C on.
    Returns:
        Prompts with thresholds and probability maps from the held-out texts.
    Raises:
        InputError: a tag too long for the model, no text that names a tag, a checkpoint of another
            run, or diverging prompts.
        KeyboardInterrupt: interrupted; the checkpoint holds the last finished step.
    """
    settings, options = settings or TuneSettings(), options or RunOptions()
    run = TextRun(
        clip, tuple(tags), texts, settings, options, progress or SilentProgress(), tuple(background)
    )
    run.loop.train()
    return run.prompts()


def tune_on_pictures(
    clip: ClipModel,
    tags: Sequence[Tag],
    pictures: TunablePictures,
    labels: Tensor,
    settings: TuneSettings,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> TunedPrompts:
    """Tune prompts on pictures with full or partial labels.

    Args:
        clip: the frozen CLIP that computed the features.
        tags: C tags.
        pictures: features of N pictures.
        labels: [N, C]: 1 has the tag, −1 has not, 0 unknown.
        settings: the method ("coop" or "dualcoop") and its numbers, from `settings_of`.
        options: files and display.
        progress: receives loss and steps.
    Returns:
        Prompts without thresholds.
    Raises:
        InputError: labels of another shape or without a positive, or as in `tune`.
    """
    options, progress = options or RunOptions(), progress or SilentProgress()
    if settings.method not in ("coop", "dualcoop"):
        raise InputError(f"method {settings.method!r} is tuned on texts: call tune")
    if tuple(labels.shape) != (len(pictures), len(tags)) or not bool((labels > 0).any()):
        raise InputError(
            f"labels should be [{len(pictures)}, {len(tags)}] with at least one 1, got "
            f"{list(labels.shape)} with {int((labels > 0).sum())}"
        )
    if settings.loss == "ranking":
        _warn_of_one_tag(tags, progress)
    settings = _fit_batch(settings, len(pictures), progress)
    identity = {
        **_common_identity(clip, tags, settings),
        "pictures": {
            "count": len(pictures),
            "sha256": pictures.sha256(),
            "labels_sha256": _sha256(labels.to(torch.int8).numpy().tobytes()),
            "known": round(float((labels != 0).float().mean()), 6),
        },
    }
    material = Material(len(pictures), lambda: pictures, lambda rows: labels[rows], identity)
    encoder, objective = _encoder(clip, tags, settings), _objective(settings, on_texts=False)
    loop = TuningLoop(encoder, objective, material, settings, options, progress)
    loop.train()
    return _prompts(clip, tuple(tags), loop, (), {"pictures": identity["pictures"]})


class TextRun:
    """A tuning run on texts: held-out texts, training texts, and the loop."""

    def __init__(
        self,
        clip: ClipModel,
        tags: tuple[Tag, ...],
        texts: Sequence[LabelledText],
        settings: TuneSettings,
        options: RunOptions,
        progress: Progress,
        background: tuple[Tag, ...] = (),
    ) -> None:
        if settings.method not in ("taidpt", "tai"):
            raise InputError(f"method {settings.method!r} is tuned on pictures: it has no texts")
        named = [(text, labels) for text, labels in texts if len(labels)]
        if not any(min(labels) < len(tags) for _, labels in named):
            raise InputError(
                "none of the texts names a tag: check the tags' spelling or give them synonyms"
            )
        _warn_of_one_tag((*tags, *background), progress)
        image_encoder(clip)  # refuses a model that cannot use the prompts, before the work
        self.clip, self.tags, self.options, self.progress = clip, tags, options, progress
        self.background = background
        self.competing = (*tags, *background)
        encoder = _encoder(clip, self.competing, settings)
        train, held = split_held_out(
            [labels for _, labels in named], len(self.competing), settings.held_out, settings.seed
        )
        self.held = [named[row] for row in held]
        self.data = [named[row] for row in train] + template_texts(
            [tag.name for tag in self.competing]
        )
        settings = _fit_batch(settings, len(self.data), progress)
        material = Material(
            len(self.data),
            lambda: self._encode("Encoding texts", self.data),
            lambda rows: self._labels([self.data[row] for row in rows]),
            self._identity(named, settings),
        )
        objective = _objective(settings, on_texts=True)
        self.loop = TuningLoop(encoder, objective, material, settings, options, progress)

    def _identity(self, named: Sequence[LabelledText], settings: TuneSettings) -> dict[str, Any]:
        """The run's identity; resuming needs a checkpoint with the same."""
        labels = json.dumps([list(map(int, labels)) for _, labels in named])
        return {
            **_common_identity(self.clip, self.tags, settings),
            **({"background": [tag.name for tag in self.background]} if self.background else {}),
            "texts": {
                "sha256": texts_sha256([text for text, _ in named]),
                "labels_sha256": _sha256(labels.encode()),
                "named": len(named),
                "held_out": len(self.held),
                "templates": len(self.data) + len(self.held) - len(named),
            },
            "cache_precision": self.options.cache_precision,
        }

    def _labels(self, texts: Sequence[LabelledText]) -> Tensor:
        targets = torch.full((len(texts), len(self.competing)), -1.0)
        for row, (_, labels) in zip(targets, texts, strict=True):
            row[list(labels)] = 1.0
        return targets

    def _encode(self, description: str, texts: Sequence[LabelledText]) -> CaptionFeatures:
        self.progress.start(description, len(texts))
        return encode_captions(
            self.clip,
            [text for text, _ in texts],
            self.options.cache,
            self.options.cache_precision,
            self.progress.advance,
            self.progress.note,
        )

    def prompts(self) -> TunedPrompts:
        """The tuned prompts, with thresholds and probability maps from the held-out texts."""
        texts = {**self.loop.material.identity["texts"], "sources": list(self.options.sources)}
        learned = self._from_held_out() if self.held else ()
        material = {"texts": texts, "background": [tag.name for tag in self.background]}
        return _prompts(self.clip, self.tags, self.loop, learned, material)

    @torch.no_grad()
    def _from_held_out(self) -> tuple[TextTag, ...]:
        """Thresholds and maps for scores of pictures, from the held-out texts."""
        count = len(self.tags)
        classes = {name: rows[:count] for name, rows in self.loop.class_embeddings().items()}
        features = self._encode("Held-out texts", self.held)
        parts = np.array_split(np.arange(len(features)), math.ceil(len(features) / 256))
        scores = np.concatenate(
            [self._merged(self.loop.scores(features.batch(rows), classes)) for rows in parts]
        )
        positive = (self._labels(self.held)[:, :count] > 0).numpy()
        on_pictures = _objective(self.loop.settings, on_texts=False)
        pictures = self._merged(on_pictures.scores(made_up_features(self.clip), classes, {}))
        return tags_from_texts(scores, positive, pictures)

    def _merged(self, scores: Mapping[str, Tensor]) -> npt.NDArray[np.float32]:
        weight = self.loop.objective.scoring({}).merge_weight
        merged = merged_scores(scores["global"], scores.get("local", scores["global"]), weight)
        return merged.cpu().numpy()


def _warn_of_one_tag(tags: Sequence[Tag], progress: Progress) -> None:
    if len(tags) == 1:
        progress.note(
            f"warning: the tag {tags[0].name!r} alone has nothing to be told apart from, so its "
            "prompts stay random: add background tags, or use templates (`taidpt bank make`)"
        )


def _encoder(clip: ClipModel, tags: Sequence[Tag], settings: TuneSettings) -> PromptEncoder:
    shape = settings.prompt
    names = [tag.name for tag in tags]
    return PromptEncoder(
        clip, tokenize_prompts(clip, names, shape.context_tokens, shape.name_position)
    )


def _objective(settings: TuneSettings, on_texts: bool) -> Objective:
    if settings.method == "dualcoop":
        return DualObjective()
    heads = ("global",) if settings.method == "tai" else ("global", "local")
    temperature = settings.text_temperature if on_texts else settings.image_temperature
    return HeadsObjective(heads, temperature, settings.image_temperature)


def _fit_batch(settings: TuneSettings, count: int, progress: Progress) -> TuneSettings:
    if count >= settings.batch:
        return settings
    progress.note(
        f"{count} texts or pictures are fewer than a batch of {settings.batch}: "
        f"one batch of {count} an epoch"
    )
    return replace(settings, batch=count)


def _common_identity(
    clip: ClipModel, tags: Sequence[Tag], settings: TuneSettings
) -> dict[str, Any]:
    return {
        "model": {"name": clip.name, "weights_sha256": clip.weights_sha256},
        "tags": [tag.name for tag in tags],
        "settings": asdict(settings),
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _prompts(
    clip: ClipModel,
    tags: tuple[Tag, ...],
    loop: TuningLoop,
    learned: tuple[TextTag, ...],
    material: dict[str, Any],
) -> TunedPrompts:
    own = slice(len(tags)) if loop.settings.prompt.class_specific else slice(None)
    return TunedPrompts(
        contexts={name: value.detach().cpu()[own].clone() for name, value in loop.contexts.items()},
        tags=tags,
        thresholds=tuple(tag.threshold for tag in learned),
        probabilities=tuple(tag.probability for tag in learned),
        model=clip.identity(),
        settings=loop.settings.prompt,
        scoring=loop.objective.scoring(loop.numbers),
        provenance={
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "method": loop.settings.method,
            "settings": asdict(loop.settings),
            **material,
            "losses": loop.losses,
            "threads": torch.get_num_threads(),
            "versions": {
                "taidpt": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        },
    )

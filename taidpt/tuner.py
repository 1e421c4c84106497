"""Prompt tuning on texts: TaI (a global prompt) and TaI-DPT (a global and a local one).

A caption plays the picture: its end token is the global feature, its tokens are the patches.
Source: Guo et al. 2023, section 3; the schedule and settings are the authors'.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from taidpt import __version__
from taidpt.caption_features import CaptionFeatures, encode_captions, texts_sha256
from taidpt.checkpoints import Checkpoint
from taidpt.clip import ClipModel
from taidpt.losses import loss_by_name
from taidpt.progress import Progress, SilentProgress
from taidpt.prompt_tokens import tokenize_prompts
from taidpt.prompts import TunedPrompts
from taidpt.runtime.bank import Threshold
from taidpt.runtime.errors import InputError
from taidpt.scores import global_scores, local_scores, merged_scores
from taidpt.tags import Tag
from taidpt.templates import template_texts
from taidpt.text_features import PromptEncoder
from taidpt.text_tower import text_tower
from taidpt.thresholds import split_held_out, thresholds_from_texts
from taidpt.tune_settings import RunOptions, TuneSettings, learning_rate

__all__ = ["LabelledText", "tune"]

_CONTEXT_DEVIATION = 0.02
_SECONDS_BETWEEN_CHECKPOINTS = 30.0

LabelledText = tuple[str, Sequence[int]]


def tune(
    clip: ClipModel,
    tags: Sequence[Tag],
    texts: Sequence[LabelledText],
    settings: TuneSettings | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> TunedPrompts:
    """Tune prompts for tags on texts alone.

    Args:
        clip: a frozen CLIP.
        tags: C tags.
        texts: (text, numbers of the tags it names); template texts of every tag are added.
        settings: the method and its numbers.
        options: files and display.
        progress: told of loss and steps.
    Returns:
        prompts with thresholds from the held-out texts.
    Raises:
        InputError: tags that do not fit, no text that names a tag, a checkpoint of another run,
            a loss that is not finite.
        KeyboardInterrupt: interrupted; the checkpoint holds the last finished step.
    """
    progress = progress or SilentProgress()
    settings, options = settings or TuneSettings(), options or RunOptions()
    run = _Run(clip, tuple(tags), texts, settings, options, progress)
    run.train()
    return run.prompts()


class _Run:
    """One tuning run: its data, its contexts, and where it stands."""

    def __init__(
        self,
        clip: ClipModel,
        tags: tuple[Tag, ...],
        texts: Sequence[LabelledText],
        settings: TuneSettings,
        options: RunOptions,
        progress: Progress,
    ) -> None:
        named = [(text, labels) for text, labels in texts if len(labels)]
        if not named:
            raise InputError(
                "none of the texts names a tag: check the tags' spelling or give them synonyms"
            )
        names = [tag.name for tag in tags]
        shape = settings.prompt
        tokens = tokenize_prompts(clip, names, shape.context_tokens, shape.name_position)
        self.clip, self.tags, self.options, self.progress = clip, tags, options, progress
        self.encoder = PromptEncoder(clip, tokens)
        train, held = split_held_out(
            [labels for _, labels in named], len(tags), settings.held_out, settings.seed
        )
        templates = template_texts(names)
        self.data = [named[row] for row in train] + templates
        self.held = [named[row] for row in held]
        self.settings = self._fit_batch(settings)
        self.identity = self._identity(named)
        self._begin()

    def _fit_batch(self, settings: TuneSettings) -> TuneSettings:
        if len(self.data) >= settings.batch:
            return settings
        self.progress.note(
            f"{len(self.data)} texts are fewer than a batch of {settings.batch}: "
            f"one batch of {len(self.data)} an epoch"
        )
        return replace(settings, batch=len(self.data))

    def _identity(self, named: Sequence[LabelledText]) -> dict[str, Any]:
        """What makes this run this run; equal to a checkpoint's, or there is no going on."""
        labels = json.dumps([list(map(int, labels)) for _, labels in named])
        return {
            "model": {"name": self.clip.name, "weights_sha256": self.clip.weights_sha256},
            "tags": [tag.name for tag in self.tags],
            "texts": {
                "sha256": texts_sha256([text for text, _ in named]),
                "labels_sha256": hashlib.sha256(labels.encode()).hexdigest(),
                "named": len(named),
                "held_out": len(self.held),
                "templates": len(self.data) + len(self.held) - len(named),
            },
            "settings": asdict(self.settings),
            "cache_precision": self.options.cache_precision,
        }

    def _begin(self) -> None:
        """First values of the contexts, then those of the checkpoint where one is gone on from."""
        width = text_tower(self.clip).width
        shape = self.settings.prompt
        lead = (len(self.tags),) if shape.class_specific else ()
        generator = torch.Generator().manual_seed(self.settings.seed)
        self.contexts: dict[str, Tensor] = {}
        for head in self.settings.heads:
            values = torch.randn(*lead, shape.context_tokens, width, generator=generator)
            values = (values * _CONTEXT_DEVIATION).to(self.clip.device)
            self.contexts[head] = values.requires_grad_(True)
        self.optimizer = torch.optim.SGD(
            list(self.contexts.values()),
            lr=self.settings.warmup_lr,
            momentum=self.settings.momentum,
            weight_decay=self.settings.weight_decay,
            foreach=False,
        )
        self.epoch, self.step, self.epoch_loss = 0, 0, 0.0
        self.losses: list[float] = []
        if self.options.resume:
            self._restore()
        self.last = self._snapshot()

    def _restore(self) -> None:
        path = self.options.checkpoint
        if path is None or not path.is_file():
            raise InputError(f"{path}: no checkpoint to go on from; leave --resume away")
        found = Checkpoint.load(path)
        found.check_run(json.loads(json.dumps(self.identity)), path)
        for head, context in self.contexts.items():
            context.data.copy_(found.tensors[head])
            if f"{head}.momentum" in found.tensors:
                buffer = found.tensors[f"{head}.momentum"].to(context.device)
                self.optimizer.state[context]["momentum_buffer"] = buffer
        self.epoch, self.step = found.epoch, found.step
        *self.losses, self.epoch_loss = found.losses
        self.progress.note(f"going on from {path}: epoch {self.epoch + 1}, step {self.step + 1}")

    def _snapshot(self) -> Checkpoint:
        """A copy of the state: an interrupt inside a step must not mix two steps."""
        tensors = {head: value.detach().cpu().clone() for head, value in self.contexts.items()}
        for head, context in self.contexts.items():
            buffer = self.optimizer.state[context].get("momentum_buffer")
            if buffer is not None:
                tensors[f"{head}.momentum"] = buffer.detach().cpu().clone()
        losses = (*self.losses, self.epoch_loss)
        return Checkpoint(tensors, self.epoch, self.step, losses, self.identity)

    def train(self) -> None:
        """All epochs that are left; a checkpoint at each one's end and every half minute."""
        self.features = self._encode("Encoding texts", self.data)
        steps = len(self.data) // self.settings.batch
        done = self.epoch * steps + self.step
        self.progress.start("Tuning prompts", self.settings.epochs * steps, done)
        saved = time.monotonic()
        try:
            while self.epoch < self.settings.epochs:
                self._one_step(steps)
                self.last = self._snapshot()
                ended = self.step == 0
                if ended or time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                    self._save()
                    saved = time.monotonic()
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C or SIGTERM, not a fault of the run
                self._save()
                self._say_how_to_go_on()
            raise

    def _save(self) -> None:
        if self.options.checkpoint is not None:
            self.last.save(self.options.checkpoint)

    def _say_how_to_go_on(self) -> None:
        if self.options.checkpoint is not None:
            self.progress.note(
                f"stopped in epoch {self.last.epoch + 1}; the same command with --resume goes on "
                f"from {self.options.checkpoint}"
            )

    def _one_step(self, steps: int) -> None:
        if self.step == 0:
            self.order = self._shuffled()
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.epoch, self.settings)
        elif not hasattr(self, "order"):
            self.order = self._shuffled()
        loss = self._loss(self.order[self.step * self.settings.batch :][: self.settings.batch])
        value = float(loss.detach())
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.epoch_loss += value
        self.step += 1
        epochs = self.settings.epochs
        self.progress.advance(1, f"epoch {self.epoch + 1}/{epochs} loss {value:.4g}")
        if self.step == steps:
            self.losses.append(self.epoch_loss / steps)
            self.epoch, self.step, self.epoch_loss = self.epoch + 1, 0, 0.0

    def _shuffled(self) -> npt.NDArray[np.int64]:
        """This epoch's order of the texts; it depends on seed and epoch alone."""
        generator = np.random.default_rng([self.settings.seed, 2, self.epoch])
        return generator.permutation(len(self.data))

    def _loss(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Sum of the heads' losses on these texts."""
        labels = self._labels([self.data[row] for row in rows]).to(self.clip.device)
        loss = loss_by_name(self.settings.loss)
        heads = self._scores(self.features, rows, self._class_embeddings())
        return torch.stack([loss(scores, labels) for scores in heads.values()]).sum()

    def _class_embeddings(self) -> dict[str, Tensor]:
        found = self.encoder(list(self.contexts.values()))
        if not all(bool(torch.isfinite(rows).all()) for rows in found):
            raise InputError(
                f"the prompts ran away to infinity in epoch {self.epoch + 1}: lower the learning "
                f"rate (it is {self.settings.lr:g})"
            )
        return dict(zip(self.contexts, found, strict=True))

    def _scores(
        self, features: CaptionFeatures, rows: npt.NDArray[np.int64], classes: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Each head's scores of these texts, [B, C]."""
        batch, device = features.batch(rows), self.clip.device
        found = {"global": global_scores(batch.pooled.to(device), classes["global"])}
        if "local" in classes:
            tokens, mask = batch.tokens.to(device), batch.mask.to(device)
            temperature = self.settings.text_temperature
            found["local"] = local_scores(tokens, classes["local"], temperature, mask)
        return found

    def _labels(self, texts: Sequence[LabelledText]) -> Tensor:
        found = torch.zeros(len(texts), len(self.tags))
        for row, (_, labels) in zip(found, texts, strict=True):
            row[list(labels)] = 1.0
        return found

    def _encode(self, description: str, texts: Sequence[LabelledText]) -> CaptionFeatures:
        self.progress.start(description, len(texts))
        return encode_captions(
            self.clip,
            [text for text, _ in texts],
            self.options.cache,
            self.options.cache_precision,
            self.progress.advance,
        )

    def prompts(self) -> TunedPrompts:
        """What was tuned, with thresholds from the held-out texts."""
        contexts = {head: value.detach().cpu().clone() for head, value in self.contexts.items()}
        return TunedPrompts(
            contexts=contexts,
            tags=self.tags,
            thresholds=self._thresholds() if self.held else (),
            model=self.clip.identity(),
            settings=self.settings.prompt,
            scoring=self.settings.scoring,
            provenance=self._provenance(),
        )

    @torch.no_grad()
    def _thresholds(self) -> tuple[Threshold, ...]:
        features, classes = self._encode("Held-out texts", self.held), self._class_embeddings()
        found = []
        for rows in np.array_split(np.arange(len(features)), math.ceil(len(features) / 256)):
            scores = self._scores(features, rows, classes)
            weight = self.settings.scoring.merge_weight
            local = scores.get("local", scores["global"])
            found.append(merged_scores(scores["global"], local, weight).cpu())
        positive = self._labels(self.held).bool()
        return thresholds_from_texts(torch.cat(found).numpy(), positive.numpy())

    def _provenance(self) -> dict[str, Any]:
        return {
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "method": self.settings.method,
            "settings": asdict(self.settings),
            "texts": {**self.identity["texts"], "sources": list(self.options.sources)},
            "losses": self.losses,
            "threads": torch.get_num_threads(),
            "versions": {
                "taidpt": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }

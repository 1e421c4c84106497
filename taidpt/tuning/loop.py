"""The loop of prompt tuning: stochastic gradient descent on context vectors, with checkpoints.

It works on features, labels and an objective, which come from captions or from pictures.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from taidpt.features.caption_features import FeatureBatch
from taidpt.features.prompt_encoder import PromptEncoder
from taidpt.progress import Progress
from taidpt.runtime.errors import InputError
from taidpt.tuning.checkpoints import Checkpoint
from taidpt.tuning.execution import Execution, execution_of, is_main_process
from taidpt.tuning.losses import loss_by_name
from taidpt.tuning.objectives import Objective
from taidpt.tuning.settings import RunOptions, TuneSettings, learning_rate

__all__ = ["FeatureSource", "Material", "Rows", "TuningLoop"]

# Standard deviation of the first context vectors: that of CLIP's own token embeddings.
_CONTEXT_DEVIATION = 0.02
# A killed run loses at most this much work; writing a checkpoint takes milliseconds.
_SECONDS_BETWEEN_CHECKPOINTS = 30.0

Rows = npt.NDArray[np.int64]


class FeatureSource(Protocol):
    """Features of captions or pictures, by number."""

    def __len__(self) -> int:
        """Number of captions or pictures."""

    def stream(self, epoch: int, batches: Sequence[Rows]) -> Iterator[FeatureBatch]:
        """Features of these numbers, batch by batch; they may differ between epochs."""


@dataclass(frozen=True)
class Material:
    """The training data of a run.

    Attributes:
        count: number of captions or pictures.
        features: returns their features; called once, when tuning begins.
        labels: returns the labels [B, C] of some of them: 1 has the tag, −1 has not, 0 unknown.
        identity: identifies the run, JSON; a checkpoint's identity must equal it.
    """

    count: int
    features: Callable[[], FeatureSource]
    labels: Callable[[Rows], Tensor]
    identity: Mapping[str, Any]


class _Step(nn.Module):
    """The loss as an `nn.Module`, so that Accelerate can wrap it and find its parameters."""

    def __init__(self, loop: TuningLoop) -> None:
        super().__init__()
        self._loss = loop._loss
        for name, value in loop.learned.items():
            self.register_parameter(name, value)

    def forward(self, rows: Rows, batch: FeatureBatch) -> Tensor:
        return self._loss(rows, batch)


class TuningLoop:
    """Contexts, an objective's further numbers, and the state of their tuning."""

    def __init__(
        self,
        encoder: PromptEncoder,
        objective: Objective,
        material: Material,
        settings: TuneSettings,
        options: RunOptions,
        progress: Progress,
    ) -> None:
        self.encoder, self.objective, self.material = encoder, objective, material
        self.settings, self.options, self.progress = settings, options, progress
        self.steps = material.count // settings.batch
        self.contexts = self._first_contexts()
        self.numbers = {
            name: nn.Parameter(value.to(encoder.device))
            for name, value in objective.first_numbers().items()
        }
        self.learned: dict[str, nn.Parameter] = {**self.contexts, **self.numbers}
        self.optimizer = torch.optim.SGD(
            list(self.learned.values()),
            lr=settings.warmup_lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            foreach=False,
        )
        self._execution = Execution()
        self.epoch, self.step, self.epoch_loss = 0, 0, 0.0
        self.losses: list[float] = []
        self._batches: Iterator[tuple[Rows, FeatureBatch]] | None = None
        if options.resume:
            self._restore()
        self._last = self._snapshot()

    def _first_contexts(self) -> dict[str, nn.Parameter]:
        """Drawn from N(0, 0.02²) on the CPU, so that every device starts equally."""
        shape = self.settings.prompt
        lead = (len(self.encoder),) if shape.class_specific else ()
        generator = torch.Generator().manual_seed(self.settings.seed)
        size = (*lead, shape.context_tokens, self.encoder.width)
        return {
            name: nn.Parameter(
                (torch.randn(*size, generator=generator) * _CONTEXT_DEVIATION).to(
                    self.encoder.device
                )
            )
            for name in self.objective.contexts
        }

    def _restore(self) -> None:
        path = self.options.checkpoint
        if path is None or not path.is_file():
            raise InputError(f"{path}: no checkpoint to resume from; remove --resume")
        checkpoint = Checkpoint.load(path)
        checkpoint.check_run(json.loads(json.dumps(self.material.identity)), path)  # noqa: TID251
        for name, value in self.learned.items():
            value.data.copy_(checkpoint.tensors[name])
            if f"{name}.momentum" in checkpoint.tensors:
                buffer = checkpoint.tensors[f"{name}.momentum"].to(value.device)
                self.optimizer.state[value]["momentum_buffer"] = buffer
        self.epoch, self.step = checkpoint.epoch, checkpoint.step
        *self.losses, self.epoch_loss = checkpoint.losses
        self.progress.note(f"resuming from {path}: epoch {self.epoch + 1}, step {self.step + 1}")

    def _snapshot(self) -> Checkpoint:
        """A copy of the state, so that an interrupt inside a step cannot mix two steps."""
        tensors = {name: value.detach().cpu().clone() for name, value in self.learned.items()}
        for name, value in self.learned.items():
            buffer = self.optimizer.state[value].get("momentum_buffer")
            if buffer is not None:
                tensors[f"{name}.momentum"] = buffer.detach().cpu().clone()
        losses = (*self.losses, self.epoch_loss)
        return Checkpoint(tensors, self.epoch, self.step, losses, self.material.identity)

    def train(self) -> None:
        """Run the remaining epochs; write a checkpoint after each and every half minute.

        Raises:
            InputError: the prompts diverged to infinity.
            KeyboardInterrupt: interrupted; the checkpoint holds the last finished step.
        """
        settings = self.settings
        self._execution = execution_of(settings.precision, self.encoder.device, settings.batch)
        self.features = self.material.features()
        self._run, self._optimizer = self._execution.prepare(_Step(self), self.optimizer)
        done = self.epoch * self.steps + self.step
        self.progress.start("Tuning prompts", self.settings.epochs * self.steps, done)
        saved = time.monotonic()
        try:
            while self.epoch < self.settings.epochs:
                self._one_step()
                self._last = self._snapshot()
                if self.step == 0 or time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                    self._save()
                    saved = time.monotonic()
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C or SIGTERM, not an error of the run
                self._save()
                self._explain_resuming()
            raise
        finally:
            self._execution.close()

    def _save(self) -> None:
        if self.options.checkpoint is not None and is_main_process():
            self._last.save(self.options.checkpoint)

    def _explain_resuming(self) -> None:
        if self.options.checkpoint is not None:
            self.progress.note(
                f"stopped in epoch {self._last.epoch + 1}; the same command with --resume "
                f"continues from {self.options.checkpoint}"
            )

    def _one_step(self) -> None:
        if self.step == 0 or self._batches is None:
            self._batches = self._rest_of_epoch()
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.epoch, self.settings)
        loss = self._run(*next(self._batches))
        value = self._execution.mean(loss.detach())
        self._optimizer.zero_grad(set_to_none=True)
        self._execution.backward(loss)
        self._optimizer.step()
        self.epoch_loss += value
        self.step += 1
        epochs = self.settings.epochs
        self.progress.advance(1, f"epoch {self.epoch + 1}/{epochs} loss {value:.4g}")
        if self.step == self.steps:
            self.losses.append(self.epoch_loss / self.steps)
            self.epoch, self.step, self.epoch_loss = self.epoch + 1, 0, 0.0

    def order(self, epoch: int) -> Rows:
        """An epoch's order of the training data, which depends on seed and epoch alone."""
        generator = np.random.default_rng([self.settings.seed, 2, epoch])
        return generator.permutation(self.material.count)

    def _rest_of_epoch(self) -> Iterator[tuple[Rows, FeatureBatch]]:
        """The remaining batches of this epoch, with their features."""
        order, size = self.order(self.epoch), self.settings.batch
        batches = [
            self._execution.share(order[step * size :][:size])
            for step in range(self.step, self.steps)
        ]
        return zip(batches, self.features.stream(self.epoch, batches), strict=True)

    def _loss(self, rows: Rows, batch: FeatureBatch) -> Tensor:
        """Sum of the heads' losses on these rows, a process's share of the batch."""
        labels = self.material.labels(rows).to(self.encoder.device)
        scores = self.scores(batch, self.class_embeddings())
        loss = loss_by_name(self.settings.loss)
        total = torch.stack([loss(part.float(), labels) for part in scores.values()]).sum()
        return total * self._execution.weight(len(rows), self.settings.batch)

    def class_embeddings(self) -> dict[str, Tensor]:
        """Embeddings of the tags with the current contexts, unit rows [C, D] each."""
        embeddings = self.encoder(list(self.contexts.values()))
        if not all(bool(torch.isfinite(rows).all()) for rows in embeddings):
            raise InputError(
                f"the prompts diverged to infinity in epoch {self.epoch + 1}: lower the learning "
                f"rate (it is {self.settings.lr:g})"
            )
        return dict(zip(self.contexts, embeddings, strict=True))

    def scores(self, batch: FeatureBatch, classes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each head's scores of a batch of captions or pictures, [B, C]."""
        return self.objective.scores(batch.to(self.encoder.device), classes, self.numbers)

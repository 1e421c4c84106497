"""Class rows from caption features without tuned prompts; they export as tuned prompts do.

A centroid is the mean feature of the captions that name a class. The linear head is a classifier
trained on noisy caption features with the ranking loss. Source: CoMC, ICML 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.errors import InputError
from taidpt.scores import SCORE_SCALE, global_scores, local_scores
from taidpt.tuning.losses import ranking_loss

__all__ = ["ClassRows", "LinearSettings", "average_rows", "concept_centroids", "linear_head"]


@dataclass(frozen=True, eq=False)
class ClassRows:
    """Rows that score pictures: score = scale · similarity + bias, for both heads.

    Attributes:
        global_rows, local_rows: unit rows, [C, D].
        scale, bias: [C].
    """

    global_rows: Tensor
    local_rows: Tensor
    scale: Tensor
    bias: Tensor

    @classmethod
    def of(cls, global_rows: Tensor, local_rows: Tensor | None = None) -> ClassRows:
        """Rows of any length, normalised, with the paper's scale and no bias."""
        whole = F.normalize(global_rows, dim=-1)
        local = whole if local_rows is None else F.normalize(local_rows, dim=-1)
        scale = torch.full((len(whole),), SCORE_SCALE)
        return cls(whole, local, scale, torch.zeros_like(scale))

    def scores(self, whole: Tensor, patches: Tensor, temperature: float) -> dict[str, Tensor]:
        """Scores of B pictures by head, [B, C] each.

        Args:
            whole, patches: unit features, [B, D] and [B, P, D].
            temperature: sharpness of the local weights over patches.
        """
        scale = self.scale / SCORE_SCALE
        return {
            "global": scale * global_scores(whole, self.global_rows) + self.bias,
            "local": scale * local_scores(patches, self.local_rows, temperature) + self.bias,
        }

    def bank(self, names: tuple[str, ...]) -> ClassBank:
        """The same rows as a class bank."""
        matrices = (self.global_rows, self.local_rows)
        unit = (F.normalize(rows.double(), dim=-1).float().numpy() for rows in matrices)
        return ClassBank.from_rows(names, *unit, scale=self.scale.numpy(), bias=self.bias.numpy())


@dataclass(frozen=True)
class LinearSettings:
    """Training of the linear head.

    The noise is CoMC's; epochs, batch and rate are round values that were not searched.

    Attributes:
        noise: standard deviation of the Gaussian noise added to each dimension of unit features.
        epochs, batch, lr: of Adam over the captions.
        seed: of the noise and of the captions' order.
    """

    noise: float = 0.1
    epochs: int = 20
    batch: int = 512
    lr: float = 1e-3
    seed: int = 0


def concept_centroids(
    features: Tensor, labels: Sequence[Sequence[int]], fallback: Tensor
) -> ClassRows:
    """The mean feature of the captions that name a class, for each class.

    Args:
        features: unit rows of N captions, [N, D].
        labels: the classes that each caption names.
        fallback: rows [C, D] for classes that no caption names.
    """
    targets = _targets(labels, len(fallback), negative=0.0)
    _check(features, targets)
    counts = targets.sum(dim=0)
    means = targets.T @ features / counts.clamp(min=1)[:, None]
    return ClassRows.of(torch.where(counts[:, None] > 0, means, fallback))


def linear_head(
    features: Tensor,
    labels: Sequence[Sequence[int]],
    start: Tensor,
    settings: LinearSettings | None = None,
) -> ClassRows:
    """A linear classifier on caption features, started from class embeddings.

    Args:
        features: unit rows of N captions, [N, D].
        labels: the classes that each caption names.
        start: unit rows [C, D] that the classifier starts from.
        settings: the training, None for the defaults.
    """
    settings = settings or LinearSettings()
    targets = _targets(labels, len(start), negative=-1.0)
    _check(features, targets)
    weight = (SCORE_SCALE * F.normalize(start, dim=-1)).clone().requires_grad_(True)
    bias = torch.zeros(len(start), requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=settings.lr)
    generator = torch.Generator().manual_seed(settings.seed)
    for _ in range(settings.epochs):
        order = torch.randperm(len(features), generator=generator)
        for start_row in range(0, len(order), settings.batch):
            rows = order[start_row : start_row + settings.batch]
            noise = torch.randn(features[rows].shape, generator=generator)
            noisy = F.normalize(features[rows] + settings.noise * noise, dim=-1)
            loss = ranking_loss(noisy @ weight.T + bias, targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    rows = weight.detach()
    unit = F.normalize(rows, dim=-1)
    return ClassRows(unit, unit, rows.norm(dim=-1), bias.detach())


def average_rows(heads: Sequence[ClassRows]) -> ClassRows:
    """The mean of several heads' unit rows, with the paper's scale and no bias."""
    if not heads:
        raise InputError("nothing to average: give at least one head")
    whole = torch.stack([head.global_rows for head in heads]).mean(dim=0)
    local = torch.stack([head.local_rows for head in heads]).mean(dim=0)
    return ClassRows.of(whole, local)


def _targets(labels: Sequence[Sequence[int]], classes: int, negative: float) -> Tensor:
    targets = torch.full((len(labels), classes), negative)
    for row, named in zip(targets, labels, strict=True):
        row[list(named)] = 1.0
    return targets


def _check(features: Tensor, targets: Tensor) -> None:
    if not len(features) or len(features) != len(targets):
        raise InputError(f"{len(features)} caption features for {len(targets)} labelled captions")

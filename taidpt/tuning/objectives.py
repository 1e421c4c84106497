"""What is tuned, and how it scores a batch: one class for each family of methods."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from taidpt.features.caption_features import FeatureBatch
from taidpt.scores import SCORE_SCALE, Scoring, dual_scores, global_scores, local_scores

__all__ = ["DualObjective", "HeadsObjective", "Objective"]

Tensors = Mapping[str, Tensor]


class Objective(ABC):
    """Contexts by name, further learned numbers, and the scores under the loss."""

    @property
    @abstractmethod
    def contexts(self) -> tuple[str, ...]:
        """Names of the contexts."""

    def first_numbers(self) -> dict[str, Tensor]:
        """Initial values of the learned numbers beside the contexts."""
        return {}

    @abstractmethod
    def scores(self, batch: FeatureBatch, classes: Tensors, numbers: Tensors) -> dict[str, Tensor]:
        """Scores of a batch, [B, C] for each head; the loss is summed over the heads.

        Args:
            batch: features on the device of the class rows.
            classes: unit rows [C, D] for each context.
            numbers: the learned numbers.
        """

    @abstractmethod
    def scoring(self, numbers: Tensors) -> Scoring:
        """How the tuned result scores pictures."""


@dataclass(frozen=True)
class HeadsObjective(Objective):
    """TaI, TaI-DPT and CoOp: a global head and, for some, a local one, each with its own context.

    Attributes:
        heads: ("global",) or ("global", "local").
        temperature: softmax sharpness of the local head in tuning.
        image_temperature: softmax sharpness over a picture's patches in use.
    """

    heads: tuple[str, ...]
    temperature: float
    image_temperature: float

    @property
    def contexts(self) -> tuple[str, ...]:
        return self.heads

    def scores(self, batch: FeatureBatch, classes: Tensors, numbers: Tensors) -> dict[str, Tensor]:
        scores = {"global": global_scores(batch.pooled, classes["global"])}
        if "local" in self.heads:
            scores["local"] = local_scores(
                batch.tokens, classes["local"], self.temperature, batch.mask
            )
        return scores

    def scoring(self, numbers: Tensors) -> Scoring:
        weight = 0.5 if "local" in self.heads else 0.0
        return Scoring(self.image_temperature, weight, scale=SCORE_SCALE)


@dataclass(frozen=True)
class DualObjective(Objective):
    """DualCoOp: a positive and a negative context, the local head, both temperatures learned.

    Attributes:
        log_scale, log_temperature: initial values of T and T_s, those of the authors.
    Source: Sun, Hu, Saenko, "DualCoOp", NeurIPS 2022.
    """

    log_scale: float = 3.91
    log_temperature: float = 3.0

    @property
    def contexts(self) -> tuple[str, ...]:
        return ("positive", "negative")

    def first_numbers(self) -> dict[str, Tensor]:
        return {
            "log_scale": torch.tensor(self.log_scale),
            "log_temperature": torch.tensor(self.log_temperature),
        }

    def scores(self, batch: FeatureBatch, classes: Tensors, numbers: Tensors) -> dict[str, Tensor]:
        scores = dual_scores(
            batch.tokens,
            classes["positive"],
            classes["negative"],
            numbers["log_temperature"].exp(),
            batch.mask,
        )
        return {"local": numbers["log_scale"].exp() * scores}

    def scoring(self, numbers: Tensors) -> Scoring:
        temperature, scale = (
            math.exp(float(numbers[name].detach())) for name in ("log_temperature", "log_scale")
        )
        return Scoring(temperature, 1.0, scale=scale)

"""Settings of tuning: the method, its numbers and its schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from taidpt.prompts.prompts_file import PromptSettings
from taidpt.runtime.errors import InputError
from taidpt.tuning.execution import PRECISIONS
from taidpt.tuning.losses import loss_by_name

__all__ = ["METHODS", "RunOptions", "TuneSettings", "learning_rate", "settings_of"]

METHODS = ("taidpt", "tai", "coop", "dualcoop")


@dataclass(frozen=True)
class TuneSettings:
    """Settings of tuning; the defaults are the paper's for VOC2007 and COCO2014.

    Attributes:
        method: "taidpt" tunes a global and a local context on texts, "tai" the global one alone;
            "coop" tunes both on pictures, "dualcoop" a positive and a negative one per tag.
        epochs: passes over the texts or pictures.
        batch: texts or pictures per step.
        lr: learning rate after the first epoch.
        warmup_lr: learning rate of the first epoch.
        momentum, weight_decay: of stochastic gradient descent.
        loss: one of `taidpt.tuning.losses.LOSSES`.
        text_temperature: softmax sharpness over a caption's tokens, in tuning.
        image_temperature: softmax sharpness over a picture's patches, in use.
        held_out: share of the texts held out of training to estimate thresholds, 0 for none.
        seed: seed of the first contexts, the shuffling and the held-out texts.
        prompt: the prompts' shape.
        precision: "fp32", or "bf16" or "fp16" for automatic mixed precision.
    """

    method: str = "taidpt"
    epochs: int = 20
    batch: int = 512
    lr: float = 1e-4
    warmup_lr: float = 1e-5
    momentum: float = 0.9
    weight_decay: float = 5e-4
    loss: str = "ranking"
    text_temperature: float = 50.0
    image_temperature: float = 40.0
    held_out: float = 0.1
    seed: int = 0
    prompt: PromptSettings = field(default_factory=PromptSettings)
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method {self.method!r}: expected one of {', '.join(METHODS)}")
        for name in ("epochs", "batch", "lr", "text_temperature", "image_temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} should be above 0, got {getattr(self, name)}")
        if not 0 <= self.held_out < 1:
            raise InputError(f"held-out share should be from 0 to below 1, got {self.held_out}")
        loss_by_name(self.loss)
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision {self.precision!r}: expected one of {', '.join(PRECISIONS)}"
            )


@dataclass(frozen=True)
class RunOptions:
    """Options that do not change the result: files and display.

    Attributes:
        checkpoint: file of the run's state, None for none.
        resume: continue from the checkpoint.
        cache: a folder for caption features, None to keep them in memory.
        cache_precision: "fp32" or "fp16" (which changes the result slightly).
        sources: names of the text files, for the record.
    """

    checkpoint: Path | None = None
    resume: bool = False
    cache: Path | None = None
    cache_precision: str = "fp32"
    sources: tuple[str, ...] = ()


def settings_of(method: str) -> TuneSettings:
    """A method's settings as its authors ran it ("coop": TaI-DPT's with a smaller batch)."""
    if method == "dualcoop":
        prompt = PromptSettings(class_specific=True)
        return TuneSettings(
            method, epochs=50, batch=64, lr=2e-3, loss="asymmetric", held_out=0.0, prompt=prompt
        )
    if method == "coop":
        return TuneSettings(method, epochs=50, batch=32, lr=2e-3, held_out=0.0)
    return TuneSettings(method)


def learning_rate(epoch: int, settings: TuneSettings) -> float:
    """The warm-up rate in the first epoch, then a cosine from the base rate (section 3)."""
    if epoch == 0:
        return settings.warmup_lr
    return 0.5 * settings.lr * (1 + math.cos(math.pi * (epoch - 1) / settings.epochs))

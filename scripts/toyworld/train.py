"""Train the toy world's CLIP from rendered scenes; run from a checkout.

    python scripts/toyworld/train.py --device cuda

CLIP training: batches of scenes and captions, the symmetric contrastive loss, AdamW with warm-up
and a cosine schedule. What differs:

- Each scene meets a caption in which one thing is exchanged. It is the hardest negative there is.
- A caption that tells the truth of another scene of the batch is no negative of that scene: of
  sixty things a large batch holds many such pairs.

- Pictures grow during training (`Stage`): small pictures are cheap and teach most of the content.
  The first stage shows only scenes of one or two things, from which words are learnt fastest.
- The positional embedding of the attention pooling is omitted in all steps below the full size and
  in half of the steps at the full size. TaI-DPT pools without positional embedding; a model
  trained both ways supports that and ordinary zero-shot use equally, at any picture size.

These settings took three and a half minutes on an H200, after 76 seconds in which 16 cores rendered
the scenes (12 GB), and gave the image tower that ships. Its captions then had 23 sentences more,
most of which call the scene a photo, a picture or a drawing. The text tower that ships is of
`train_text.py`, which says why.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout, for `scripts`

from scripts.toyworld.model import (
    build_model,
    encode_images,
    encode_texts,
    model_config,
    save_model,
)
from scripts.toyworld.probe import evaluate, prepare_images
from scripts.toyworld.scene_store import SceneStore, render_store
from scripts.toyworld.tokenizer import load_tokenizer
from taidpt.toyworld import assets

__all__ = [
    "Stage",
    "TrainSettings",
    "clip_loss",
    "make_optimizer",
    "report",
    "train",
    "update",
    "vary",
]


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        size: side of the pictures in pixels.
        steps: optimiser steps.
        most_things: scenes with more emoji than this are skipped.
    """

    size: int
    steps: int
    most_things: int = 5


@dataclass(frozen=True)
class TrainSettings:
    """What determines a training run.

    Attributes:
        stages: picture sizes in order; the last is the model's own.
        batch: scenes a step.
        learning_rate: peak of the cosine.
        warmup: steps of linear warm-up.
        weight_decay: of the weight matrices; gains, biases and embeddings have none.
        scenes: number of rendered scenes.
        seed: seed of weights, order, crops and wordings.
        device: where to train, "cpu" or "cuda"; on a GPU all scenes lie in its memory.
        save_every: steps between checkpoints.
        probe: held-out pictures evaluated at each checkpoint, None for all.
    """

    stages: tuple[Stage, ...] = (
        Stage(96, 497, 2),
        Stage(96, 870),
        Stage(128, 870),
        Stage(160, 1243),
    )
    batch: int = 1024
    learning_rate: float = 1.5e-3
    warmup: int = 300
    weight_decay: float = 0.1
    scenes: int = 160000
    seed: int = 0
    device: str = "cpu"
    save_every: int = 100
    probe: int | None = None

    @property
    def steps(self) -> int:
        """Total number of steps."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage of a step."""
        for stage in self.stages:
            step -= stage.steps
            if step < 0:
                return stage
        return self.stages[-1]

    def rate_at(self, step: int) -> float:
        """Learning rate at this step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def vary(pixels: Tensor, seed: int) -> Tensor:
    """Jitter brightness, contrast and colour of normalised pixels, and lay soft blobs over.

    The blobs stand for backgrounds that training never shows.
    """
    generator = torch.Generator(pixels.device).manual_seed(seed)
    count = len(pixels)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=pixels.device) * 2 - 1

    gain = (1 + 0.2 * uniform(count, 1, 1, 1)) * (1 + 0.1 * uniform(count, 3, 1, 1))
    shift = 0.2 * uniform(count, 1, 1, 1)
    blobs = F.interpolate(uniform(count, 3, 6, 6), pixels.shape[-2:], mode="bicubic")
    strength = 0.4 * uniform(count, 1, 1, 1).clamp(min=0)  # none in half of the pictures
    return pixels * gain + shift + strength * blobs


def clip_loss(image: Tensor, text: Tensor, scale: Tensor, true: Tensor | None = None) -> Tensor:
    """Symmetric contrastive loss of matching rows.

    Args:
        image: features [B, D].
        text: features [B + W, D]; the last W are captions that belong to no picture. The two may
            change places: captions, and pictures of which the last W have no caption.
        scale: what cosines are multiplied with.
        true: bool [B, B + W]; a pair off the diagonal that is true counts in no sum.
    """
    logits = scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    count = len(image)
    target = torch.arange(count, device=logits.device)
    if true is not None:
        own = torch.eye(*logits.shape, dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(true & ~own, float("-inf"))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, :count].T, target)) / 2


def make_optimizer(model: Any, settings: TrainSettings) -> torch.optim.AdamW:
    named = list(model.named_parameters())
    plain = [p for name, p in named if p.ndim < 2 or "embedding" in name]
    decayed = [p for name, p in named if not (p.ndim < 2 or "embedding" in name)]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)


def _save_checkpoint(path: Path, model: Any, optimizer: torch.optim.AdamW, step: int) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _resume(path: Path, model: Any, optimizer: torch.optim.AdamW) -> int:
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _order(settings: TrainSettings, store: SceneStore, step: int) -> NDArray[np.int64]:
    """The scenes of this step's batch, from a new shuffle each epoch."""
    things = settings.stage_at(step).most_things
    per_epoch = len(store.with_at_most(things)) // settings.batch
    epoch, place = divmod(step, per_epoch)
    shuffled = store.shuffled(things, (settings.seed, epoch))
    return shuffled[place * settings.batch : (place + 1) * settings.batch]


def _step(model: Any, store: SceneStore, settings: TrainSettings, step: int) -> Tensor:
    seed = settings.seed * 1_000_003 + step
    batch = store.batch(_order(settings, store, step), seed)
    size = settings.stage_at(step).size
    pixels = vary(prepare_images(batch.images, size), seed)
    pixels = pixels.to(memory_format=torch.channels_last)
    positional = size == model.visual.image_size and step % 2 == 0
    # fp32 on a CPU: one without units for bf16 takes ten times as long
    with torch.autocast(settings.device, torch.bfloat16, enabled=settings.device != "cpu"):
        image, _ = encode_images(model, pixels, positional)
        text = encode_texts(model, batch.tokens)
    return clip_loss(image.float(), text.float(), model.logit_scale.exp(), batch.true)


def update(model: Any, optimizer: torch.optim.AdamW, loss: Tensor, rate: float) -> Tensor:
    """One optimiser step at this learning rate; the loss, for which a GPU is not waited."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    model.logit_scale.data.clamp_(max=math.log(100))
    return loss.detach()


def report(settings: TrainSettings, step: int, losses: list[Tensor], seconds: float) -> None:
    left_min = (settings.steps - step) * seconds / 60
    print(
        f"step {step}/{settings.steps} size {settings.stage_at(step - 1).size} "
        f"loss {float(torch.stack(losses[-20:]).mean()):.3f} {seconds:.3f} s/step "
        f"left {left_min:.0f} min",
        flush=True,
    )


def train(settings: TrainSettings, work: Path, files: Path) -> None:
    """Train, or continue from the last checkpoint, and write the weights.

    Args:
        settings: the run.
        work: git-ignored folder for scenes and checkpoints.
        files: folder that holds `merges.txt.gz` and receives `model.json` and `model.safetensors`.
    Raises:
        MissingDependencyError: the emoji font is needed to render scenes and is not installed.
    """
    merges = files / "merges.txt.gz"
    render_store(work, settings.scenes, merges, processes=os.cpu_count() or 1)
    store = SceneStore(work, settings.device)
    tokenizer = load_tokenizer(merges)
    config = model_config(tokenizer.vocab_size)
    (files / "model.json").write_text(json.dumps(config, indent=2) + "\n")
    torch.manual_seed(settings.seed)
    torch.backends.cudnn.benchmark = True
    model = build_model(config).to(settings.device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer(model, settings)
    checkpoint = work / "checkpoint.pt"
    first = _resume(checkpoint, model, optimizer)
    began = time.monotonic()
    losses: list[Tensor] = []
    for step in range(first + 1, settings.steps + 1):
        loss = _step(model, store, settings, step - 1)
        losses.append(update(model, optimizer, loss, settings.rate_at(step - 1)))
        if step % 20 == 0:
            report(settings, step, losses, (time.monotonic() - began) / (step - first))
        if step % settings.save_every == 0 or step == settings.steps:
            _save_checkpoint(checkpoint, model, optimizer, step)
            save_model(model, work / "model.safetensors")
            size = settings.stage_at(step - 1).size
            print(step, evaluate(model, tokenizer, size, settings.probe), flush=True)
    save_model(model, files / "model.safetensors")


def _stages(text: str) -> tuple[Stage, ...]:
    return tuple(Stage(*(int(n) for n in part.split(":"))) for part in text.split(","))


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for flag, kind, default, text in (
        ("--work", Path, Path("build/toyworld"), "Folder for scenes and checkpoints."),
        ("--files", Path, assets.FOLDER, "Folder of the shipped files, where the weights go."),
        ("--batch", int, TrainSettings.batch, "Scenes per step."),
        ("--scenes", int, TrainSettings.scenes, "Scenes to render."),
        ("--seed", int, TrainSettings.seed, "Seed of every random number generator."),
        ("--learning-rate", float, TrainSettings.learning_rate, "Peak of the cosine."),
        ("--warmup", int, TrainSettings.warmup, "Steps of linear warm-up."),
        ("--save-every", int, TrainSettings.save_every, "Steps between checkpoints."),
        ("--device", str, TrainSettings.device, "Where to train: cpu or cuda."),
    ):
        parser.add_argument(flag, type=kind, default=default, help=f"{text} [%(default)s]")
    parser.add_argument(
        "--stages",
        type=_stages,
        default=TrainSettings.stages,
        help="Stages as size:steps or size:steps:most-things, separated by commas.",
    )
    options = parser.parse_args()
    given = vars(options)
    work, files = given.pop("work"), given.pop("files")
    train(TrainSettings(**given), work, files)


if __name__ == "__main__":
    main()

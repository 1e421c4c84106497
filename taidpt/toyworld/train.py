"""Trains the toy world's CLIP from rendered scenes: `python -m taidpt.toyworld.train`.

Plain CLIP: a batch of scenes and their captions, the symmetric contrastive loss, AdamW with
warm-up and a cosine. Two things are ours:

- Pictures grow while training goes on (`Stage`): small pictures are cheap and teach most of it. The
  first stage shows only scenes of one or two things, from which words are learnt soonest.
- The positional embedding of the attention pooling is left out in all steps below the full size
  and in half of the steps at it. TaI-DPT pools without positional embedding and reads each cell by
  itself; a model that has been trained both ways serves that reading and the ordinary zero-shot
  one equally, at any picture size.

On two cores of a 2024 server CPU the shipped weights took about an hour.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from taidpt.toyworld.heldout import load_heldout
from taidpt.toyworld.model import build_model, encode_images, encode_texts, model_config, save_model
from taidpt.toyworld.scene_store import SceneStore, render_store
from taidpt.toyworld.tokenizer import load_tokenizer

__all__ = ["Stage", "TrainSettings", "evaluate", "train"]

_MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI CLIP's, open_clip's default for a new model
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        size: side of the pictures in pixels.
        steps: how long.
        most_things: scenes with more emoji than this are left out.
    """

    size: int
    steps: int
    most_things: int = 5


@dataclass(frozen=True)
class TrainSettings:
    """All that fixes a training run.

    Attributes:
        stages: picture sizes in order; the last is the model's own.
        batch: scenes a step.
        learning_rate: peak of the cosine.
        warmup: steps of linear warm-up.
        weight_decay: of the weight matrices; gains, biases and embeddings have none.
        scenes: how many scenes are rendered.
        seed: fixes weights, order, crops and wordings.
        save_every: steps between checkpoints.
    """

    stages: tuple[Stage, ...] = (
        Stage(96, 500, 2),
        Stage(96, 1300),
        Stage(128, 700),
        Stage(160, 500),
    )
    batch: int = 256
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.1
    scenes: int = 64000
    seed: int = 0
    save_every: int = 100

    @property
    def steps(self) -> int:
        """Steps in all."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """The stage that this step belongs to."""
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


def prepare_images(images: NDArray[np.uint8], size: int) -> Tensor:
    """uint8 [B, S, S, 3] → normalised float [B, 3, size, size], channels last in memory."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    if pixels.shape[-1] != size:
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    mean = torch.tensor(_MEAN).view(1, 3, 1, 1) * 255
    std = torch.tensor(_STD).view(1, 3, 1, 1) * 255
    return (pixels.float() - mean) / std


def _dim(pixels: Tensor, seed: int) -> Tensor:
    """Brightness and contrast of each picture jittered, on normalised pixels."""
    chance = torch.Generator().manual_seed(seed)
    gain = 1 + 0.2 * (torch.rand(len(pixels), 1, 1, 1, generator=chance) * 2 - 1)
    shift = 0.2 * (torch.rand(len(pixels), 1, 1, 1, generator=chance) * 2 - 1)
    return pixels * gain + shift


def clip_loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Symmetric contrastive loss of matching rows [B, D]."""
    logits = scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _optimizer(model: Any, settings: TrainSettings) -> torch.optim.AdamW:
    named = list(model.named_parameters())
    plain = [p for name, p in named if p.ndim < 2 or "embedding" in name]
    decayed = [p for name, p in named if not (p.ndim < 2 or "embedding" in name)]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)


def _average_precision(scores: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    order = np.argsort(-scores, kind="stable")
    hits = truth[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / max(hits.sum(), 1))


def mean_average_precision(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Macro mean over tags of non-interpolated average precision, × 100; both [N, C]."""
    return 100 * float(
        np.mean([_average_precision(scores[:, c], labels[:, c]) for c in range(labels.shape[1])])
    )


@torch.no_grad()
def evaluate(model: Any, tokenizer: Any, size: int, temperature: float = 40.0) -> dict[str, float]:
    """mAP on the held-out set with "a photo of a {}.", by way of scoring a picture.

    Args:
        model: an open_clip `CLIP`; left in the mode it was in.
        tokenizer: its tokenizer.
        size: picture side in pixels; the positional embedding is used only at the model's own.
        temperature: softmax sharpness over patches of the local branch.
    """
    images, labels, names = load_heldout()
    was_training = model.training
    model.eval()
    bank = F.normalize(
        encode_texts(model, tokenizer([f"a photo of a {n}." for n in names])), dim=-1
    )
    scores: dict[str, list[Tensor]] = {"positional": [], "global": [], "local": [], "merged": []}
    for start in range(0, len(images), 128):
        pixels = prepare_images(np.stack(images[start : start + 128]), size)
        feature, patches = encode_images(model, pixels, positional=False)
        similar = F.normalize(patches, dim=-1) @ bank.T
        local = (torch.softmax(temperature * similar, 1) * similar).sum(1)
        plain = F.normalize(feature, dim=-1) @ bank.T
        scores["global"].append(plain)
        scores["local"].append(local)
        scores["merged"].append((plain + local) / 2)
        if size == model.visual.image_size:
            located, _ = encode_images(model, pixels, positional=True)
            scores["positional"].append(F.normalize(located, dim=-1) @ bank.T)
    model.train(was_training)
    return {
        name: round(mean_average_precision(torch.cat(parts).numpy(), labels), 2)
        for name, parts in scores.items()
        if parts
    }


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
    """Which scenes make this step's batch: a fresh shuffle each epoch."""
    scenes = store.with_at_most(settings.stage_at(step).most_things)
    per_epoch = len(scenes) // settings.batch
    epoch, place = divmod(step, per_epoch)
    shuffled = np.random.default_rng((settings.seed, epoch)).permutation(scenes)
    return shuffled[place * settings.batch : (place + 1) * settings.batch]


def _step(
    model: Any, tokenizer: Any, store: SceneStore, settings: TrainSettings, step: int
) -> Tensor:
    seed = settings.seed * 1_000_003 + step
    batch = store.batch(_order(settings, store, step), seed)
    size = settings.stage_at(step).size
    pixels = _dim(prepare_images(batch.images, size), seed)
    pixels = pixels.to(memory_format=torch.channels_last)
    positional = size == model.visual.image_size and step % 2 == 0
    with torch.autocast("cpu", torch.bfloat16):
        image, _ = encode_images(model, pixels, positional)
        text = encode_texts(model, tokenizer(batch.captions))
    return clip_loss(image.float(), text.float(), model.logit_scale.exp())


def train(settings: TrainSettings, work: Path, files: Path) -> None:
    """Train, or go on from the last checkpoint, and write the weights.

    Args:
        settings: the run.
        work: git-ignored folder for scenes, checkpoints and the log.
        files: where `merges.txt.gz` and `heldout.zip` are and `model.*` go.
    Raises:
        MissingDependencyError: scenes have to be rendered and the emoji font is not installed.
    """
    render_store(work, settings.scenes)
    store = SceneStore(work)
    tokenizer = load_tokenizer(files / "merges.txt.gz")
    config = model_config(tokenizer.vocab_size)
    (files / "model.json").write_text(json.dumps(config, indent=2) + "\n")
    torch.manual_seed(settings.seed)
    model = build_model(config).to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, settings)
    checkpoint = work / "checkpoint.pt"
    first = _resume(checkpoint, model, optimizer)
    model.train()
    began, losses = time.monotonic(), []
    for step in range(first, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate_at(step)
        loss = _step(model, tokenizer, store, settings, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.logit_scale.data.clamp_(max=math.log(100))
        losses.append(loss.item())
        if (step + 1) % 20 == 0:
            rate = (time.monotonic() - began) / (step + 1 - first)
            print(
                f"step {step + 1}/{settings.steps} size {settings.stage_at(step).size} "
                f"loss {np.mean(losses[-20:]):.3f} scale {model.logit_scale.exp().item():.1f} "
                f"{rate:.2f} s/step left {rate * (settings.steps - step - 1) / 60:.0f} min",
                flush=True,
            )
        if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
            _save_checkpoint(checkpoint, model, optimizer, step + 1)
            save_model(model, work / "model.safetensors")
            print(step + 1, evaluate(model, tokenizer, settings.stage_at(step).size), flush=True)
    save_model(model, files / "model.safetensors")


def _stages(text: str) -> tuple[Stage, ...]:
    return tuple(Stage(*(int(n) for n in part.split(":"))) for part in text.split(","))


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build/toyworld"))
    parser.add_argument("--files", type=Path, default=Path(__file__).resolve().parent / "files")
    parser.add_argument("--stages", type=_stages, default=TrainSettings.stages)
    parser.add_argument("--batch", type=int, default=TrainSettings.batch)
    parser.add_argument("--scenes", type=int, default=TrainSettings.scenes)
    parser.add_argument("--seed", type=int, default=TrainSettings.seed)
    options = parser.parse_args()
    settings = TrainSettings(
        stages=options.stages, batch=options.batch, scenes=options.scenes, seed=options.seed
    )
    train(settings, options.work, options.files)


if __name__ == "__main__":
    main()

"""One step of TaI-DPT tuning: the plain way against ours, and what encoding captions costs.

    python benchmarks/tuning_step.py [--threads 2] [--classes 80] [--batch 32] [--repeats 3]

RN50's text tower with random weights, both prompts, forward + backward + step. Captions are already
encoded on both sides. The plain way is the published one: whole prompts of 77 tokens for every
class and context, token features padded to 77, the ranking loss over [B, C, C]. Both ways run in
turn in one process, on the same threads; first their losses and gradients are compared. CPU time
stands beside the clock's, for machines that do other work as well.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from taidpt.clip.model import ClipModel, load_clip
from taidpt.features.caption_features import CaptionFeatures, encode_captions
from taidpt.features.prompt_encoder import PromptEncoder
from taidpt.prompts.tokens import PromptTokens, tokenize_prompts
from taidpt.scores import global_scores, local_scores
from taidpt.tuning.losses import ranking_loss

COCO_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,"
    "backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,"
    "baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,"
    "bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,"
    "oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
CONTEXT_TOKENS = 16
TEMPERATURE = 50.0
TARGET = 25.0


@dataclass(frozen=True)
class Case:
    """What both ways are given."""

    clip: ClipModel
    tokens: PromptTokens
    features: CaptionFeatures
    labels: Tensor


def make_case(classes: int, batch: int) -> tuple[Case, list[str]]:
    """A random RN50, class names (COCO's, then numbered ones), and captions naming one to three."""
    clip = load_clip("RN50-quickgelu", "random")
    coco = COCO_NAMES.split(",")
    names = [coco[i % 80] + (f" {i // 80}" if i >= 80 else "") for i in range(classes)]
    generator = np.random.default_rng(0)
    labels, captions = torch.full((batch, classes), -1.0), []
    for row in labels:
        chosen = generator.choice(classes, int(generator.integers(1, 4)), replace=False)
        row[chosen.tolist()] = 1.0
        listed = " and a ".join(names[index] for index in chosen)
        captions.append(f"A street corner in the rain with a {listed}.")
    tokens = tokenize_prompts(clip, names, CONTEXT_TOKENS)
    return Case(clip, tokens, encode_captions(clip, captions), labels), captions


def on_device(case: Case, device: torch.device) -> Case:
    """The same where it is computed; captions' features stay on the host, as in tuning."""
    tokens = replace(case.tokens, ids=case.tokens.ids.to(device), ends=case.tokens.ends.to(device))
    return replace(case, clip=case.clip.to(device), tokens=tokens, labels=case.labels.to(device))


def our_step(case: Case) -> Callable[[list[Tensor]], Tensor]:
    """The project's own step."""
    encoder = PromptEncoder(case.clip, case.tokens)
    rows = np.arange(len(case.features))

    def loss(contexts: list[Tensor]) -> Tensor:
        batch = case.features.batch(rows).to(case.labels.device)
        global_rows, local_rows = encoder(contexts)
        scores = (
            global_scores(batch.pooled, global_rows),
            local_scores(batch.tokens, local_rows, TEMPERATURE, batch.mask),
        )
        return torch.stack([ranking_loss(score, case.labels) for score in scores]).sum()

    return loss


def plain_step(case: Case) -> Callable[[list[Tensor]], Tensor]:
    """The published step: nothing cut, nothing shared, all pairs of classes."""
    model: Any = case.clip.model
    batch = case.features.batch(np.arange(len(case.features))).to(case.labels.device)
    padding = 77 - batch.tokens.shape[1]
    tokens = F.pad(batch.tokens, (0, 0, 0, padding))
    hidden = torch.where(F.pad(batch.mask, (0, padding)), 0.0, -10000.0)[:, :, None]
    ids = F.pad(case.tokens.ids, (0, 77 - case.tokens.ids.shape[1])).to(case.labels.device)
    words = model.token_embedding(ids.clamp(min=0)).detach()
    rows = torch.arange(len(ids), device=ids.device)

    def embed(context: Tensor) -> Tensor:
        middle = context.expand(len(ids), -1, -1)
        x = torch.cat([words[:, :1], middle, words[:, 1 + CONTEXT_TOKENS :]], dim=1)
        x = model.transformer(x + model.positional_embedding, attn_mask=model.attn_mask)
        x = model.ln_final(x)[rows, case.tokens.ends] @ model.text_projection
        return F.normalize(x, dim=-1)

    def pairs(scores: Tensor) -> Tensor:
        gaps = torch.relu(1.0 - scores[:, :, None] + scores[:, None, :])
        has = (case.labels > 0).float()
        wanted = has[:, :, None] * (1.0 - has[:, None, :])
        return (gaps * wanted).sum(dim=(1, 2)).mean()

    def loss(contexts: list[Tensor]) -> Tensor:
        global_rows, local_rows = (embed(context) for context in contexts)
        cosine = tokens @ local_rows.T
        weights = torch.softmax(TEMPERATURE * cosine + hidden, dim=1)
        local = 4.0 * (weights * cosine).sum(1)
        return pairs(4.0 * batch.pooled @ global_rows.T) + pairs(local)

    return loss


class Way:
    """A loss with its contexts and optimiser; every way starts from the same values."""

    def __init__(
        self, loss: Callable[[list[Tensor]], Tensor], device: torch.device | None = None
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (CONTEXT_TOKENS, 512)
        drawn = [0.02 * torch.randn(shape, generator=generator) for _ in range(2)]
        self.contexts = [values.to(device or "cpu") for values in drawn]
        for context in self.contexts:
            context.requires_grad_(True)
        self.optimizer = torch.optim.SGD(self.contexts, lr=1e-4, momentum=0.9, weight_decay=5e-4)
        self._loss = loss
        self.clock: list[float] = []
        self.cpu: list[float] = []

    def gradients(self) -> tuple[float, list[Tensor]]:
        """The loss and its gradients at the contexts' present values."""
        loss = self._loss(self.contexts)
        return float(loss.detach()), list(torch.autograd.grad(loss, self.contexts))

    def step(self) -> None:
        """One timed step."""
        clock, cpu = time.perf_counter(), time.process_time()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self._loss(self.contexts))
        self.optimizer.step()
        if self.contexts[0].is_cuda:
            torch.cuda.synchronize()
        self.clock.append(time.perf_counter() - clock)
        self.cpu.append(time.process_time() - cpu)


def compare(plain: Way, ours: Way) -> dict[str, float]:
    """Largest differences between the two ways before anything is timed."""
    (plain_loss, plain_gradients), (our_loss, our_gradients) = plain.gradients(), ours.gradients()
    relative = [
        float((a - b).abs().max() / a.abs().max())
        for a, b in zip(plain_gradients, our_gradients, strict=True)
    ]
    found = {
        "loss, relative": abs(our_loss - plain_loss) / abs(plain_loss),
        "gradient, relative": max(relative),
    }
    if max(found.values()) > 1e-3:
        raise SystemExit(f"the two ways disagree, nothing is timed: {found}")
    return found


def encoding_cost(case: Case, captions: list[str], texts: int = 256) -> dict[str, float]:
    """Seconds to encode captions once: ours (cut, sorted) and whole at 77 tokens."""
    many = (captions * (texts // len(captions) + 1))[:texts]
    model: Any = case.clip.model
    start = time.perf_counter()
    encode_captions(case.clip, many)
    ours = time.perf_counter() - start
    ids = case.clip.tokenizer(many)
    start = time.perf_counter()
    with torch.no_grad():
        for part in torch.split(ids, len(captions)):
            x = model.token_embedding(part) + model.positional_embedding
            x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
            F.normalize(x @ model.text_projection, dim=-1)
    plain = time.perf_counter() - start
    return {"ours, captions/s": texts / ours, "plain, captions/s": texts / plain}


def main() -> None:
    """Compare, time in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3, help="plain steps; ours runs 5 for each")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    case, captions = make_case(options.classes, options.batch)
    plain, ours = Way(plain_step(case)), Way(our_step(case))
    differences = compare(plain, ours)
    ours.step()
    ours.clock.clear()
    ours.cpu.clear()
    for _ in range(options.repeats):
        plain.step()
        for _ in range(5):
            ours.step()
    report(options, differences, plain, ours, encoding_cost(case, captions))


def report(
    options: argparse.Namespace,
    differences: dict[str, float],
    plain: Way,
    ours: Way,
    encoding: dict[str, float],
) -> None:
    """Print the table; write it as JSON where asked."""
    clock, cpu = (
        statistics.median(getattr(plain, kind)) / statistics.median(getattr(ours, kind))
        for kind in ("clock", "cpu")
    )
    print(
        f"RN50 text tower (random), C = {options.classes}, B = {options.batch}, both prompts, "
        f"{options.threads} threads, torch {torch.__version__}, {platform.machine()}"
    )
    for name, value in differences.items():
        print(f"largest difference of {name:20} {value:.1e}")
    for name, way in (("plain", plain), ("ours", ours)):
        print(
            f"{name:6} step, seconds: median {statistics.median(way.clock):7.3f} by the clock "
            f"({min(way.clock):.3f} to {max(way.clock):.3f}, n = {len(way.clock)}), "
            f"{statistics.median(way.cpu):7.3f} of CPU"
        )
    print(f"ratio  {clock:.1f} by the clock, {cpu:.1f} of CPU time (target {TARGET:.0f})")
    for name, value in encoding.items():
        print(f"caption encoding, {name:18} {value:8.1f}")
    print(f"118,287 captions once: {118287 / encoding['ours, captions/s'] / 60:.1f} minutes")
    if options.json:
        record = {"ratio": clock, "cpu_ratio": cpu, **differences, **encoding}
        record |= {"plain_s": plain.clock, "ours_s": ours.clock, "threads": options.threads}
        options.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""The method as the paper has it: slow, plain, and the truth for every acceleration.

Follows the method's sections line by line: whole prompts of 77 tokens for each class and context,
captions encoded whole and every time, the ranking loss over [B, C, C].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from taidpt.clip.model import ClipModel

__all__ = [
    "learning_rate",
    "plain_asymmetric_loss",
    "plain_caption",
    "plain_class_rows",
    "plain_dual_tuning",
    "plain_ranking_loss",
    "plain_scores",
    "plain_tuning",
]


def text_model(clip: ClipModel) -> Any:
    return getattr(clip.model, "text", clip.model)


def encode_embedded(clip: ClipModel, embedded: Tensor) -> Tensor:
    """Embedded tokens [N, 77, W] → every token's output after ln_final × text_projection."""
    tower = text_model(clip)
    x = embedded + tower.positional_embedding
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask))
    projection = tower.text_projection
    return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection


def plain_class_rows(
    clip: ClipModel, names: Sequence[str], context: Tensor, name_position: str = "end"
) -> Tensor:
    """Section 2: [start] [context] [name] "." [end], the end token's feature, unit rows [C, D]."""
    rows = []
    for index, name in enumerate(names):
        own = context[index] if context.dim() == 3 else context
        tokens = clip.tokenizer([f"{name}."])[0]
        end = int(tokens.argmax())
        embedded = text_model(clip).token_embedding(tokens)
        before = {"end": len(own), "middle": len(own) // 2, "front": 0}[name_position]
        name_end = end - 1  # the full stop is one token here
        whole = torch.cat(
            [embedded[:1], own[:before], embedded[1:name_end], own[before:], embedded[name_end:]]
        )[:77]
        features = encode_embedded(clip, whole[None])[0]
        rows.append(features[end + len(own)])
    return F.normalize(torch.stack(rows), dim=-1)


def plain_caption(clip: ClipModel, text: str) -> tuple[Tensor, Tensor]:
    """Section 3: the caption's global feature [D] and all its tokens' features [77, D], unit."""
    tokens = clip.tokenizer([text])
    with torch.no_grad():
        features = encode_embedded(clip, text_model(clip).token_embedding(tokens))[0]
    return F.normalize(features[int(tokens.argmax())], dim=-1), F.normalize(features, dim=-1)


def plain_scores(
    clip: ClipModel, text: str, global_rows: Tensor, local_rows: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """s_G and s_L of one caption, [C] each."""
    pooled, tokens = plain_caption(clip, text)
    end = int(clip.tokenizer([text])[0].argmax())
    cosine = tokens @ local_rows.T  # [77, C]
    padding = torch.where(torch.arange(len(tokens)) <= end, 0.0, -10000.0)[:, None]
    weights = torch.softmax(temperature * cosine + padding, dim=0)
    return 4 * (global_rows @ pooled), 4 * (weights * cosine).sum(0)


def plain_ranking_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Batch mean of Σ over positives p, negatives n of max(0, 1 − s_p + s_n); labels [B, C]."""
    pairs = torch.relu(1 - scores[:, :, None] + scores[:, None, :])  # [B, p, n]
    wanted = labels[:, :, None] * (1 - labels[:, None, :])
    return (pairs * wanted).sum(dim=(1, 2)).mean()


def learning_rate(epoch: int, base: float, epochs: int = 20) -> float:
    """Epoch 0 at 1e-5, then 0.5 · LR · (1 + cos(π (e − 1) / epochs))."""
    if epoch == 0:
        return 1e-5
    return 0.5 * base * (1 + math.cos(math.pi * (epoch - 1) / epochs))


def plain_tuning(
    clip: ClipModel,
    names: Sequence[str],
    batches: Sequence[Sequence[Sequence[tuple[str, Tensor]]]],
    contexts: Sequence[Tensor],
    base: float,
    name_position: str = "end",
) -> tuple[list[float], list[Tensor]]:
    """Tune on given batches: epochs of batches of (text, labels [C]).

    Returns:
        the loss of every step, and the two contexts at the end.
    """

    def loss(step: Sequence[tuple[str, Tensor]], tuned: Sequence[Tensor]) -> Tensor:
        rows = [plain_class_rows(clip, names, context, name_position) for context in tuned]
        pairs = [plain_scores(clip, text, rows[0], rows[1], 50.0) for text, _ in step]
        labels = torch.stack([label for _, label in step])
        heads = (torch.stack([pair[head] for pair in pairs]) for head in (0, 1))
        return torch.stack([plain_ranking_loss(scores, labels) for scores in heads]).sum()

    return _descend(batches, contexts, base, loss)


def plain_dual_tuning(
    clip: ClipModel,
    names: Sequence[str],
    batches: Sequence[Sequence[tuple[Tensor, Tensor]]],
    learned: Sequence[Tensor],
    base: float,
) -> tuple[list[float], list[Tensor]]:
    """Section 6 on given batches: epochs of batches of (patches [B, P, D], labels [B, C]).

    `learned` are the positive contexts, the negative ones, T and T_s at their first values.
    """

    def loss(step: tuple[Tensor, Tensor], tuned: Sequence[Tensor]) -> Tensor:
        patches, labels = step
        positive, negative = (plain_class_rows(clip, names, context) for context in tuned[:2])
        first, second = patches @ positive.T, patches @ negative.T  # [B, P, C]
        weights = torch.softmax(tuned[3].exp() * first, dim=1)
        logits = tuned[2].exp() * (weights * (first - second)).sum(dim=1)
        return plain_asymmetric_loss(logits, labels)

    return _descend(batches, learned, base, loss)


def plain_asymmetric_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """γ⁺ 1, γ⁻ 2, clip 0.05, focusing weight detached, zeros ignored; sum / batch size."""
    total = logits.sum() * 0.0
    for logit, label in zip(logits.flatten(), labels.flatten(), strict=True):
        p = torch.sigmoid(logit)
        if label > 0:
            total = total - (1 - p).detach() * torch.log(p)
        elif label < 0:
            shifted = torch.clamp(p - 0.05, min=0)
            total = total - shifted.detach() ** 2 * torch.log(1 - shifted)
    return total / len(logits)


def _descend(
    batches: Sequence[Sequence[Any]], learned: Sequence[Tensor], base: float, loss_of: Any
) -> tuple[list[float], list[Tensor]]:
    """SGD, momentum 0.9, weight decay 5e-4, written out."""
    tuned = [value.clone().requires_grad_(True) for value in learned]
    buffers: list[Tensor | None] = [None] * len(tuned)
    losses = []
    for epoch, steps in enumerate(batches):
        rate = learning_rate(epoch, base, len(batches))
        for step in steps:
            loss = loss_of(step, tuned)
            gradients = torch.autograd.grad(loss, tuned)
            losses.append(float(loss.detach()))
            for index, (value, gradient) in enumerate(zip(tuned, gradients, strict=True)):
                step_gradient = gradient + 5e-4 * value.detach()
                old = buffers[index]
                buffers[index] = step_gradient if old is None else 0.9 * old + step_gradient
                value.data -= rate * buffers[index]
    return losses, [value.detach() for value in tuned]

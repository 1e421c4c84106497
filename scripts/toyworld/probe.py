"""Zero-shot mAP of the toy model on the held-out set, measured during training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.toyworld.model import encode_images, encode_texts
from taidpt.metrics import MapSettings, mean_average_precision
from taidpt.scores import global_scores, local_scores, merged_scores
from taidpt.texts.templates import PLAIN_TEMPLATE
from taidpt.toyworld.assets import load_heldout

__all__ = ["evaluate", "prepare_images"]

_MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI CLIP's, open_clip's default for a new model
_TEMPERATURE = 40.0  # of the local branch's softmax over patches, the paper's for photographs
_STD = (0.26862954, 0.26130258, 0.27577711)
_MAP = MapSettings(empty_class="zero")  # a subset of the pictures leaves tags without a positive


def prepare_images(images: Tensor, size: int) -> Tensor:
    """uint8 [B, S, S, 3] → normalised float [B, 3, size, size], channels last in memory."""
    pixels = images.permute(0, 3, 1, 2).float()
    if pixels.shape[-1] != size:
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    mean = torch.tensor(_MEAN, device=pixels.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(_STD, device=pixels.device).view(1, 3, 1, 1) * 255
    return (pixels - mean) / std


@torch.no_grad()
def evaluate(
    model: Any, tokenizer: Any, size: int, pictures: int | None = None
) -> dict[str, float]:
    """mAP on the held-out set with "a photo of a {}.", by head.

    Args:
        model: an open_clip `CLIP`; its train or eval mode is restored.
        tokenizer: its tokenizer.
        size: picture side in pixels; the positional embedding is used only at the model's own.
        pictures: number of pictures, None for all.
    """
    images, labels, names = load_heldout()
    images, labels = images[:pictures], labels[:pictures]
    was_training = model.training
    model.eval()
    prompts = [PLAIN_TEMPLATE.replace("{}", name) for name in names]
    device = model.logit_scale.device
    bank = F.normalize(encode_texts(model, tokenizer(prompts).to(device)), dim=-1)
    scores: dict[str, list[Tensor]] = {"positional": [], "global": [], "local": [], "merged": []}
    for start in range(0, len(images), 128):
        pixels = prepare_images(
            torch.from_numpy(np.stack(images[start : start + 128])).to(device), size
        )
        feature, patches = encode_images(model, pixels, positional=False)
        plain = global_scores(F.normalize(feature, dim=-1), bank)
        local = local_scores(patches, bank, _TEMPERATURE)
        scores["global"].append(plain)
        scores["local"].append(local)
        scores["merged"].append(merged_scores(plain, local))
        if size == model.visual.image_size:
            located, _ = encode_images(model, pixels, positional=True)
            scores["positional"].append(global_scores(F.normalize(located, dim=-1), bank))
    model.train(was_training)
    return {
        name: round(mean_average_precision(torch.cat(parts).cpu().numpy(), labels, _MAP).value, 2)
        for name, parts in scores.items()
        if parts
    }

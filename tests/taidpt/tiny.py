"""Small random CLIPs for tests: 32 numbers a feature."""

from __future__ import annotations

from typing import Any

import torch

from taidpt.clip.model import ClipModel

__all__ = ["RESNET", "VIT", "make_clip"]

_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 3}
RESNET = {
    "image_size": 96,
    "layers": [1, 1, 1, 1],
    "width": 16,
    "patch_size": None,
    "head_width": 64,
}
VIT = {"image_size": 48, "layers": 3, "width": 64, "patch_size": 16, "head_width": 16}


def make_clip(vision: dict[str, Any] = RESNET, **text: Any) -> ClipModel:
    """A small CLIP of random weights (seed 0); `text` overrides its text tower's settings.

    Norms get random weights too, so that no test passes because one is the identity.
    """
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.tokenizer import SimpleTokenizer

    custom = text.pop("custom_text", False)
    build = CustomTextCLIP if custom else CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(32, vision_cfg=dict(vision), text_cfg={**_TEXT, **text})
        for name, value in model.named_parameters():
            if "ln_" in name or "bn" in name:
                value.data.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
    model.float().eval().requires_grad_(False)
    tower = model.text if custom else model
    return ClipModel(
        model=model,
        tokenizer=SimpleTokenizer(),
        name="tiny",
        pretrained="random:0",
        weights_sha256="0" * 64,
        licence="none needed",
        image_size=vision["image_size"],
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        embed_dim=32,
        context_length=77,
        is_causal=tower.attn_mask is not None,
    )

"""The small CLIP of the toy world: open_clip's towers, at a size that trains on a laptop.

The two forward functions add what training needs beyond open_clip's methods: attention pooling
without positional embedding, and a text tower that takes texts cut at the longest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from taidpt.toyworld import assets

__all__ = [
    "build_model",
    "encode_images",
    "encode_texts",
    "image_cells",
    "load_model",
    "model_config",
    "pool_cells",
    "save_model",
]


def model_config(vocab_size: int) -> dict[str, Any]:
    """The open_clip configuration; 160 pixels give 5 × 5 patches.

    Args:
        vocab_size: rows of the token embedding: byte tokens, merges, start and end.
    """
    return {
        "embed_dim": 192,
        "vision_cfg": {"image_size": 160, "layers": [1, 1, 2, 1], "width": 24, "patch_size": None},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": vocab_size,
            "width": 192,
            "heads": 3,
            "layers": 3,
        },
    }


def build_model(config: dict[str, Any]) -> Any:
    """A newly initialised open_clip `CLIP` of this configuration."""
    from open_clip.model import CLIP

    return CLIP(**config)


def load_model(weights: Path | None = None, config: Path | None = None) -> Any:
    """The shipped model in fp32 and eval mode; the weights must match the configuration."""
    from safetensors.torch import load_file

    settings = json.loads((config or assets.path("model.json")).read_text("utf-8"))
    model = build_model(settings)
    state = load_file(str(weights or assets.path("model.safetensors")))
    model.load_state_dict({name: _to_float(value) for name, value in state.items()}, strict=True)
    return model.eval()


def _to_float(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def save_model(model: Any, target: Path) -> None:
    """Write the weights as fp16 safetensors, through a temporary file beside the target."""
    from safetensors.torch import save_file

    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    partial = target.with_suffix(".partial")
    save_file(state, str(partial), metadata={"format": "pt"})
    partial.chmod(0o644)  # safetensors restricts the file to its owner
    partial.replace(target)


def image_cells(model: Any, images: Tensor) -> Tensor:
    """The image tower's last feature map of normalised pictures [B, 3, H, W], [B, P, E]."""
    x = model.visual.stem(images)
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        x = getattr(model.visual, stage)(x)
    return torch.as_tensor(x).flatten(2).transpose(1, 2)


def pool_cells(model: Any, cells: Tensor, positional: bool) -> Tensor:
    """The attention pooling's feature of `image_cells`, not normalised, [B, D].

    Args:
        model: an open_clip `CLIP` with a `ModifiedResNet`.
        cells: [B, P, E].
        positional: add the positional embedding first; then the pictures have the model's size.
    """
    pool = model.visual.attnpool
    tokens = torch.cat([cells.mean(1, keepdim=True), cells], 1)
    if positional:
        tokens = tokens + pool.positional_embedding.to(tokens.dtype)
    batch, _, width = tokens.shape
    query = pool.q_proj(tokens[:, :1])
    heads = [
        part.view(batch, -1, pool.num_heads, width // pool.num_heads).transpose(1, 2)
        for part in (query, pool.k_proj(tokens), pool.v_proj(tokens))
    ]
    pooled = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(batch, width)
    return torch.as_tensor(pool.c_proj(pooled))


def encode_images(model: Any, images: Tensor, positional: bool) -> tuple[Tensor, Tensor]:
    """Global and local features, not normalised.

    Args:
        model: an open_clip `CLIP` with a `ModifiedResNet`.
        images: normalised pictures, [B, 3, H, W].
        positional: add the positional embedding before pooling; then H and W must be the model's.
    Returns:
        The pooled feature [B, D], and each cell after `v_proj` and `c_proj` [B, P, D].
    """
    pool, cells = model.visual.attnpool, image_cells(model, images)
    return pool_cells(model, cells, positional), pool.c_proj(pool.v_proj(cells))


def encode_texts(model: Any, tokens: Tensor) -> Tensor:
    """Text features at EOT, not normalised, [B, D].

    Args:
        model: an open_clip `CLIP`.
        tokens: token numbers, zero-padded, [B, L]; the tower is causal, so L may be the longest
            text's.
    """
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)
    ends = x[torch.arange(len(tokens)), tokens.argmax(1)]
    return torch.as_tensor(ends @ model.text_projection)

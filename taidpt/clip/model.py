"""CLIP models through open_clip: a resolved source becomes frozen fp32 towers."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from taidpt.clip.download import fetch_weights, quiet
from taidpt.clip.source import EMBEDDED_MODEL, Source, resolve_source
from taidpt.clip.tokenizer_files import load_tokenizer
from taidpt.clip.weights import load_weights, plain_weights, state_sha256
from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.atomic import sha256_of

__all__ = ["EMBEDDED_MODEL", "ClipModel", "Source", "load", "load_clip", "resolve_source"]


@dataclass(frozen=True)
class ClipModel:
    """A frozen CLIP with everything that names it.

    Attributes:
        model: open_clip's model, fp32, eval mode, no parameter trainable.
        tokenizer: open_clip's tokenizer of this model: texts → token numbers [N, context_length].
        name: open_clip's model name, "toyworld", or the path of the model's folder.
        pretrained: the weight source: an open_clip tag, a path, "random:SEED", or "embedded".
        weights_sha256: of the weight file; of the weights themselves where there is no file.
        licence: what is known of the weights' licence.
        image_size: side of the square input in pixels.
        mean, std: normalisation of RGB in [0, 1].
        embed_dim: D, the joint space.
        context_length: the most tokens that a text may have, start and end included.
        is_causal: whether a token of the text tower sees only those before it.
        local_branch: of the image tower, "value" or "self"; see `image_encoder`.
    """

    model: nn.Module
    tokenizer: Any
    name: str
    pretrained: str
    weights_sha256: str
    licence: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    embed_dim: int
    context_length: int
    is_causal: bool
    local_branch: str = "value"

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> ClipModel:
        """Move the towers (in place) and return self."""
        self.model.to(device)
        return self

    def identity(self) -> dict[str, Any]:
        """The record of this model in files derived from it, JSON-ready."""
        return {
            "name": self.name,
            "pretrained": self.pretrained,
            "weights_sha256": self.weights_sha256,
            "licence": self.licence,
            "embed_dim": self.embed_dim,
        }


def load_clip(name: str, pretrained: str | None = None, seed: int = 0) -> ClipModel:
    """`load(resolve_source(name, pretrained, seed))`."""
    return load(resolve_source(name, pretrained, seed))


def load(source: Source) -> ClipModel:
    """Load a CLIP, frozen, in fp32 and eval mode, on the CPU.

    Raises:
        InputError: weights that cannot be fetched, read or fitted, or a tokenizer that is not here
            and cannot be fetched.
        MissingDependencyError: a tokenizer of Hugging Face without its packages.
    """
    tokenizer = load_tokenizer(source)  # before the weights, whose download may take long
    if source.tag is not None:
        source = replace(source, path=fetch_weights(source.name, source.tag))
    if source.path is None:
        model = _build(source)
    else:
        with plain_weights(source.path) as weights:
            model = _build(source)
            load_weights(model, weights, source.path)
    return _freeze(model, tokenizer, source)


def _build(source: Source) -> nn.Module:
    """The architecture with random weights of the source's seed."""
    import open_clip

    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(source.seed)
            if source.config is not None:
                return _from_config(source.config)
            model: nn.Module = open_clip.create_model(source.name, pretrained_hf=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"model {source.name} could not be built: {reason}") from error
    return model


def _from_config(config: dict[str, Any]) -> nn.Module:
    """A model of open_clip's classes, as its `create_model` builds one; fetches no weights."""
    from open_clip.model import CLIP, CustomTextCLIP

    config = copy.deepcopy(config)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    model: nn.Module = (CustomTextCLIP if custom else CLIP)(**config)
    return model


def _freeze(model: Any, tokenizer: Any, source: Source) -> ClipModel:
    model.float().eval().requires_grad_(False)
    tower = getattr(model, "text", model)
    projection = getattr(model.visual, "output_dim", None)
    return ClipModel(
        model=model,
        tokenizer=tokenizer,
        name=source.name,
        pretrained=source.label,
        weights_sha256=(
            sha256_of(source.path) if source.path else state_sha256(model.state_dict())
        ),
        licence=source.licence,
        image_size=_square(model.visual.image_size, source.name),
        mean=source.mean,
        std=source.std,
        embed_dim=int(projection) if projection else _probe_dim(model, source.name),
        context_length=int(model.context_length),
        is_causal=getattr(tower, "attn_mask", None) is not None,
    )


def _square(size: Any, name: str) -> int:
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    if height != width:
        raise InputError(f"model {name} takes {height} × {width} pictures: expected a square")
    return int(height)


def _probe_dim(model: Any, name: str) -> int:
    """Width of the joint space of a tower that does not declare it (timm's)."""
    side = model.visual.image_size
    height, width = side if isinstance(side, (tuple, list)) else (side, side)
    try:
        with torch.no_grad():
            return int(model.encode_image(torch.zeros(1, 3, height, width)).shape[-1])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"model {name} cannot encode a picture: {reason}") from error

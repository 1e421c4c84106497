"""Chooses the encoder with a local branch for an image tower.

`register_local_branch` adds an architecture; callers use `image_encoder`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from taidpt.clip.model import ClipModel
from taidpt.encoders.base import ImageEncoder, UnsupportedTowerError
from taidpt.encoders.resnet import ResNetEncoder
from taidpt.encoders.timm_conv import TimmConvEncoder
from taidpt.encoders.timm_vit import TRUNKS as TRANSFORMERS, TimmVitEncoder
from taidpt.encoders.vit import VitEncoder
from taidpt.runtime.bundle.manifest import LOCAL_BRANCHES
from taidpt.runtime.errors import InputError

__all__ = [
    "SUPPORTED",
    "ImageEncoder",
    "at_size",
    "image_encoder",
    "register_local_branch",
    "tower_encoder",
]

SUPPORTED = (
    "CLIP's ResNets and ViTs, SigLIP, ViTamin, EVA, Perception Encoder, FastViT (MobileCLIP), and "
    "timm's ConvNeXt, Swin, EfficientNet, MobileNet, ResNet and RegNet"
)
Builder = Callable[[Any], ImageEncoder]


def _timm_encoder(visual: Any) -> ImageEncoder:
    """The encoder of a timm trunk: a transformer of tokens, or a map of cells."""
    if type(visual.trunk).__name__ in TRANSFORMERS:
        return TimmVitEncoder(visual)
    return TimmConvEncoder(visual)


_BUILDERS: dict[str, Builder] = {
    "ModifiedResNet": ResNetEncoder,
    "VisionTransformer": VitEncoder,
    "TimmModel": _timm_encoder,
}


def register_local_branch(architecture: str) -> Callable[[Builder], Builder]:
    """Decorate the builder of the encoder for an image tower's class, given by its name."""

    def add(builder: Builder) -> Builder:
        _BUILDERS[architecture] = builder
        return builder

    return add


def image_encoder(clip: ClipModel) -> ImageEncoder:
    """The image encoder of a CLIP with its local branch, frozen and in eval mode.

    Raises:
        InputError: the architecture has no local branch, or not the one asked for.
    """
    return tower_encoder(clip.model.visual, clip.name, clip.local_branch)


def tower_encoder(visual: Any, name: str, local_branch: str = "value") -> ImageEncoder:
    """The image encoder of a single tower; `name` is the model's name in errors."""
    if local_branch not in LOCAL_BRANCHES:
        expected = ", ".join(LOCAL_BRANCHES)
        raise InputError(f"local branch {local_branch!r}: expected one of {expected}")
    try:
        builder = _BUILDERS.get(type(visual).__name__)
        if builder is None:
            raise UnsupportedTowerError(f"its image tower is {type(visual).__name__}")
        encoder = builder(visual).eval().requires_grad_(False)
    except UnsupportedTowerError as error:
        raise InputError(
            f"model {name} has no local branch: {error}; supported are {SUPPORTED}"
        ) from None
    if local_branch == "self" and not encoder.attends_to_itself:
        raise InputError(
            f"model {name}: local branch self needs the last attention of CLIP's ResNets and ViTs "
            "or of timm's VisionTransformer; use --local-branch value for this tower"
        )
    encoder.local_branch = local_branch
    return encoder


def at_size(clip: ClipModel, size: int) -> ClipModel:
    """The same model for pictures of another size, without zero-shot features.

    Raises:
        InputError: the model's positions fit its own size alone.
    """
    if size != clip.image_size and not image_encoder(clip).any_size:
        raise InputError(
            f"model {clip.name} takes only {clip.image_size} × {clip.image_size} pixels, got "
            f"{size}: CLIP's ResNets and timm's convolutional networks take any size"
        )
    return replace(clip, image_size=size)

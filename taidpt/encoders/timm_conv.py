"""timm's towers that end in a map of cells: FastViT (MobileCLIP), ConvNeXt, Swin, EfficientNet,
MobileNet, ResNet and RegNet.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from taidpt.encoders.base import ImageEncoder, UnsupportedTowerError
from taidpt.runtime.errors import ParityError

__all__ = ["TRUNKS", "TimmConvEncoder"]

# The trunk's class → its name in messages. timm's MobileNetV1 and V2 are EfficientNets, and its
# MobileNetV4 is a MobileNetV3.
TRUNKS = {
    "FastVit": "FastViT",
    "ConvNeXt": "ConvNeXt",
    "SwinTransformer": "Swin",
    "EfficientNet": "EfficientNet",
    "MobileNetV3": "MobileNet",
    "ResNet": "ResNet",
    "RegNet": "RegNet",
}
# Each stage of these halves an odd size downwards; padded convolutions of the others halve upwards.
_ROUND_DOWN = ("ConvNeXt", "SwinTransformer")
_FOLD_TOLERANCE = 1e-3  # of the largest feature: rounding alone, over some hundred layers


class TimmConvEncoder(ImageEncoder):
    """A timm network that averages a map of cells, and projects the mean.

    Local: the same norm and projections for each cell instead of the mean.
    Source: Yu et al., "Convolutions Die Hard" (FC-CLIP), NeurIPS 2023, section 3, for ConvNeXt; the
    other networks end in the same way.
    FastViT's branches of training are folded into one convolution each (timm's
    `reparameterize_model`), and the result is compared with the tower as it was trained.
    """

    def __init__(self, visual: Any) -> None:
        _check(visual.trunk)
        super().__init__(_folded(visual) if type(visual.trunk).__name__ == "FastVit" else visual)
        self.any_size = type(visual.trunk).__name__ != "SwinTransformer"

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        trunk = self.visual.trunk
        cells = trunk.forward_features(images)
        if (
            type(trunk).__name__ == "MobileNetV3"
        ):  # widens the mean, not the map, before it projects
            mean, cells = (
                trunk.act2(trunk.norm_head(trunk.conv_head(part)))
                for part in (cells.mean(dim=(2, 3), keepdim=True), cells)
            )
            return self._project(mean.flatten(1)), self._project(cells.flatten(2).transpose(1, 2))
        if getattr(getattr(trunk, "head", None), "input_fmt", "NCHW") == "NCHW":
            cells = cells.permute(0, 2, 3, 1)
        cells = cells.flatten(1, 2)
        return self._project(cells.mean(dim=1)), self._project(cells)

    def _project(self, x: Tensor) -> Tensor:
        """The mean or the cells, [..., W] → joint space [..., D]."""
        trunk = self.visual.trunk
        head: Any = getattr(trunk, "head", None)
        if hasattr(head, "norm"):
            x = _last_axis(head.norm, x)
        if hasattr(head, "pre_logits"):
            x = head.pre_logits(x)
        return torch.as_tensor(self.visual.head(_classifier(trunk)(x)))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        trunk = self.visual.trunk
        stride = int(trunk.feature_info[-1]["reduction"])
        rest = 0 if type(trunk).__name__ in _ROUND_DOWN else stride - 1
        return (height + rest) // stride, (width + rest) // stride


def _classifier(trunk: Any) -> Any:
    """The linear layer at the trunk's end; the identity where open_clip removed it."""
    if hasattr(trunk, "head"):
        return trunk.head.fc
    return trunk.classifier if hasattr(trunk, "classifier") else trunk.fc


def _last_axis(norm: Any, x: Tensor) -> Tensor:
    """A norm over the channels of a map, on vectors: timm's LayerNorm2d permutes and unpermutes."""
    return nn.functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _check(trunk: Any) -> None:
    kind = type(trunk).__name__
    if kind not in TRUNKS:
        raise UnsupportedTowerError(f"its image tower is timm's {kind}")
    pooling = getattr(trunk.head if hasattr(trunk, "head") else trunk, "global_pool", None)
    pool = getattr(pooling, "pool_type", "")
    if pool != "avg":
        raise UnsupportedTowerError(f"its {kind} pools by {pool or 'nothing'!r}, not by the mean")


def _folded(visual: Any) -> Any:
    """The tower with each block's branches folded into one convolution, checked equal."""
    from timm.utils.model import reparameterize_model

    folded = copy.copy(visual)
    folded._modules = dict(visual._modules)
    folded.trunk = reparameterize_model(visual.trunk)
    noise = torch.rand(1, 3, *visual.image_size, generator=torch.Generator().manual_seed(0))
    noise = noise.to(next(visual.parameters()).device)
    with torch.no_grad():
        before, after = visual(noise), folded(noise)
    difference = float((after - before).abs().max() / before.abs().max())
    if not difference <= _FOLD_TOLERANCE:
        raise ParityError(
            f"folding the branches of {type(visual.trunk).__name__} changed its feature by "
            f"{difference:.1e} of the largest value, allowed are {_FOLD_TOLERANCE:.0e}; "
            "please report the model"
        )
    return folded

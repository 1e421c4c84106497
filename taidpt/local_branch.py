"""Image encoders with a local branch: one global feature and a feature a patch, in CLIP's space.

An architecture enters by `register_local_branch`; callers only ever see `image_encoder`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from taidpt.blocks import attend, close_block, is_plain_block, queries_keys_values, run_block
from taidpt.clip import ClipModel
from taidpt.runtime.errors import InputError

__all__ = ["ImageEncoder", "at_size", "image_encoder", "register_local_branch"]


class ImageEncoder(nn.Module, ABC):
    """Normalised pictures → global and patch features, neither of unit length.

    Subclasses hold `visual`, open_clip's image tower.

    Attributes:
        any_size: whether pictures may have another size than the model's own.
    """

    any_size = False

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a batch.

        Args:
            images: normalised RGB, [B, 3, H, W].
        Returns:
            global features [B, D] and patch features [B, P, D], P = rows × columns row by row.
        """

    @abstractmethod
    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches for an input of this many pixels."""

    def zero_shot_features(self, images: Tensor) -> Tensor:
        """CLIP's own image features [B, D], positional embedding included: the baseline."""
        return torch.as_tensor(self.visual(images))


Builder = Callable[[Any], ImageEncoder]
_BUILDERS: dict[str, Builder] = {}


def register_local_branch(architecture: str) -> Callable[[Builder], Builder]:
    """Give an image tower's class (by its name) a local branch; decorates its builder."""

    def add(builder: Builder) -> Builder:
        _BUILDERS[architecture] = builder
        return builder

    return add


def image_encoder(clip: ClipModel) -> ImageEncoder:
    """The image encoder of a CLIP, frozen and in eval mode.

    Raises:
        InputError: the architecture has no local branch yet.
    """
    visual: Any = clip.model.visual
    architecture = type(visual).__name__
    if architecture not in _BUILDERS:
        trunk = type(getattr(visual, "trunk", visual)).__name__
        raise InputError(
            f"model {clip.name}: architecture {architecture} ({trunk}) has no local branch yet; "
            f"known are {', '.join(sorted(_BUILDERS))}"
        )
    return _BUILDERS[architecture](visual).eval().requires_grad_(False)


def at_size(clip: ClipModel, size: int) -> ClipModel:
    """The same model for pictures of another size; zero-shot features stay those of its own size.

    Raises:
        InputError: its positions are of one size.
    """
    if size != clip.image_size and not image_encoder(clip).any_size:
        raise InputError(
            f"model {clip.name} takes {clip.image_size} × {clip.image_size} pixels alone, got "
            f"{size}: only CLIP's ResNets, pooled without positions, take any size"
        )
    return replace(clip, image_size=size)


@register_local_branch("ModifiedResNet")
class ResNetEncoder(ImageEncoder):
    """CLIP's ModifiedResNet with attention pooling freed of its positional embedding.

    Global: the mean cell asks, mean and cells answer; without positions any input size works.
    One query lets keys and values stay unprojected: `(W_k x)·q = x·(W_kᵀ q)` and
    `Σ a W_v x = W_v Σ a x`, the key's bias is the same for every cell and leaves the softmax as it
    is. Equal to the plain form up to rounding, without its two E × E products a cell.
    Local: `c_proj(v_proj(cell))`, folded into one 1 × 1 convolution.
    Source: Guo et al. 2023, section 3.3.
    """

    any_size = True

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        pool = visual.attnpool
        weight = pool.c_proj.weight.double() @ pool.v_proj.weight.double()
        bias = pool.c_proj.weight.double() @ pool.v_proj.bias.double() + pool.c_proj.bias.double()
        self.local = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
        self.local.weight.data = weight.float()[:, :, None, None]
        self.local.bias = nn.Parameter(bias.float())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        cells = self._cells(images)
        patches = self.local(cells).flatten(2).transpose(1, 2)
        return self._pool(cells.flatten(2).transpose(1, 2)), patches

    def _cells(self, images: Tensor) -> Tensor:
        visual = self.visual
        x = visual.stem(images)
        for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = stage(x)
        return torch.as_tensor(x)

    def _pool(self, cells: Tensor) -> Tensor:
        """Attention pooling of cells [B, P, E] → [B, D]."""
        pool = self.visual.attnpool
        mean = cells.mean(dim=1, keepdim=True)
        tokens = torch.cat([mean, cells], dim=1)
        width, heads = tokens.shape[-1], pool.num_heads
        size = width // heads
        query = pool.q_proj(mean[:, 0]).unflatten(-1, (heads, size)).transpose(0, 1)  # [h, B, d]
        asked = torch.matmul(query, pool.k_proj.weight.unflatten(0, (heads, size)))  # [h, B, E]
        logits = torch.matmul(asked.transpose(0, 1), tokens.transpose(1, 2)) * size**-0.5
        mixed = torch.matmul(logits.softmax(dim=-1), tokens).transpose(0, 1)  # [h, B, E]
        value = pool.v_proj.weight.unflatten(0, (heads, size)).transpose(1, 2)  # [h, E, d]
        joined = torch.matmul(mixed, value).transpose(0, 1).flatten(1) + pool.v_proj.bias
        return torch.as_tensor(pool.c_proj(joined))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        def cells(pixels: int) -> int:  # one strided convolution, then four 2 × 2 poolings
            return ((pixels + 1) // 2) // 16

        return cells(height), cells(width)


@register_local_branch("VisionTransformer")
class VitEncoder(ImageEncoder):
    """open_clip's VisionTransformer; patches take the value path of the last block.

    In the last block each patch keeps its own value instead of a mixture over all tokens (the
    attention map becomes the identity); residual, MLP, final norm and projection stay. Plain
    last-layer patch tokens align badly with text, these do not.
    Source: Zhou, Loy, Dai, "Extract Free Dense Labels from CLIP" (MaskCLIP), ECCV 2022, section 3.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__(visual)
        unknown = [block for block in visual.transformer.resblocks if not is_plain_block(block)]
        if visual.attn_pool is not None or unknown:
            part = "attentional pooling" if visual.attn_pool is not None else "custom blocks"
            raise InputError(f"a VisionTransformer with {part} has no local branch yet")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self._check_size(images.shape[-2], images.shape[-1])
        x = self._embed(images)
        *body, last = self.visual.transformer.resblocks
        for block in body:
            x = run_block(block, x)
        query, key, value = queries_keys_values(last, x)
        patches = close_block(last, x[:, 1:], value[:, 1:])
        # Of the last block only what pooling looks at is computed: one token, or all for "avg".
        asked = slice(0, 1) if self.visual.pool_type == "tok" else slice(None)
        mixed = attend(last, query[:, asked], key, value, None)
        return self._project(self._pool(close_block(last, x[:, asked], mixed))), self._project(
            self.visual.ln_post(patches)
        )

    def _embed(self, images: Tensor) -> Tensor:
        visual = self.visual
        cells = visual.conv1(images).flatten(2).transpose(1, 2)
        start = visual.class_embedding.expand(cells.shape[0], 1, -1)
        return torch.as_tensor(
            visual.ln_pre(torch.cat([start, cells], dim=1) + visual.positional_embedding)
        )

    def _pool(self, tokens: Tensor) -> Tensor:
        """[B, L, W] → [B, W]: class token or mean of patches, final norm before or after."""
        visual = self.visual
        if not visual.final_ln_after_pool:
            tokens = visual.ln_post(tokens)
        pooled = tokens[:, 1:].mean(dim=1) if visual.pool_type == "avg" else tokens[:, 0]
        return visual.ln_post(pooled) if visual.final_ln_after_pool else pooled

    def _project(self, x: Tensor) -> Tensor:
        return x if self.visual.proj is None else x @ self.visual.proj

    def _check_size(self, height: int, width: int) -> None:
        expected = tuple(self.visual.image_size)
        if (height, width) != expected:
            raise InputError(
                f"this ViT takes {expected[0]} × {expected[1]} pixels, got {height} × {width}"
            )

    def grid(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self.visual.patch_size
        return height // rows, width // columns

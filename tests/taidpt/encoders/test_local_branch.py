"""The local branch against plain forms that follow the method's text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from taidpt.clip.model import ClipModel
from taidpt.encoders.local_branch import image_encoder
from taidpt.runtime.errors import InputError
from tests.taidpt.tiny import VIT, make_clip


def images(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def plain_resnet(visual: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Attention pooling through torch's multi-head attention, positional embedding left out."""
    for stage in (visual.stem, visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = stage(x)
    pool = visual.attnpool
    cells = x.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([cells.mean(0, keepdim=True), cells])
    pooled, _ = F.multi_head_attention_forward(
        query=tokens,
        key=tokens,
        value=tokens,
        embed_dim_to_check=tokens.shape[-1],
        num_heads=pool.num_heads,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True,
        training=False,
    )
    return pooled[0], pool.c_proj(pool.v_proj(cells)).transpose(0, 1)


@pytest.mark.parametrize("size", [96, 128, 161])
def test_resnet_equals_the_plain_form_at_any_size(resnet_clip: ClipModel, size: int) -> None:
    encoder = image_encoder(resnet_clip)
    global_features, patches = encoder(images(size))
    expected_global, expected_patches = plain_resnet(resnet_clip.model.visual, images(size))
    torch.testing.assert_close(global_features, expected_global, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(patches, expected_patches, rtol=1e-4, atol=1e-5)
    rows, columns = encoder.grid(size, size)
    assert patches.shape == (2, rows * columns, 32)


def test_resnet_without_its_positions_pools_as_clip_does(resnet_clip: ClipModel) -> None:
    clip = make_clip()
    encoder = image_encoder(clip)
    with_positions = encoder.zero_shot_features(images(96))
    assert not torch.allclose(with_positions, encoder(images(96))[0], atol=1e-3)
    clip.model.visual.attnpool.positional_embedding.data.zero_()
    torch.testing.assert_close(
        encoder.zero_shot_features(images(96)), encoder(images(96))[0], rtol=1e-4, atol=1e-5
    )


def plain_vit(visual: Any, x: Tensor) -> Tensor:
    """MaskCLIP's value path: the last block with every token attending to itself alone."""
    x = visual._embeds(x)
    for block in visual.transformer.resblocks[:-1]:
        x = block(x)
    last = visual.transformer.resblocks[-1]
    width = x.shape[-1]
    weight, bias = last.attn.in_proj_weight[2 * width :], last.attn.in_proj_bias[2 * width :]
    x = x + last.ls_1(last.attn.out_proj(F.linear(last.ln_1(x), weight, bias)))
    x = x + last.ls_2(last.mlp(last.ln_2(x)))
    return visual.ln_post(x)[:, 1:] @ visual.proj


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool_type": "avg"},
        {"final_ln_after_pool": True},
        {"pool_type": "avg", "final_ln_after_pool": True, "ls_init_value": 0.5},
        {"no_ln_pre": True},
    ],
)
def test_vit_global_is_clips_own_and_patches_the_value_path(options: dict[str, Any]) -> None:
    clip = make_clip({**VIT, **options})
    encoder = image_encoder(clip)
    global_features, patches = encoder(images(48))
    expected = encoder.zero_shot_features(images(48))
    torch.testing.assert_close(global_features, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        patches, plain_vit(clip.model.visual, images(48)), rtol=1e-4, atol=1e-5
    )
    assert encoder.grid(48, 48) == (3, 3)


def test_unknown_architectures_are_named() -> None:
    class Unheard(torch.nn.Module):
        image_size = 48

    clip = make_clip()
    clip.model.visual = Unheard()
    with pytest.raises(InputError, match=r"no local branch: .*Unheard; supported are"):
        image_encoder(clip)


def test_a_vit_refuses_other_sizes(vit_clip: ClipModel) -> None:
    with pytest.raises(InputError, match="takes 48 × 48 pixels, got 64 × 64"):
        image_encoder(vit_clip)(images(64))

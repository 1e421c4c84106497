"""The local branch by self-self attention, against torch's own attention called twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from taidpt.encoders.local_branch import image_encoder, tower_encoder
from taidpt.runtime.errors import InputError
from tests.taidpt.encoders.test_families import family_clip, images
from tests.taidpt.tiny import make_clip

Parts = tuple[Tensor, Tensor, Tensor]


def plain_mixture(parts: Parts, heads: int) -> Tensor:
    """SCLIP's mixture of [B, L, W]: attention of q over q, and of k over k, added."""
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
    mixed = F.scaled_dot_product_attention(q, q, v) + F.scaled_dot_product_attention(k, k, v)
    return mixed.transpose(1, 2).flatten(2)


def plain_open_clip(visual: Any, pictures: Tensor) -> Tensor:
    x = visual._embeds(pictures)
    for block in visual.transformer.resblocks[:-1]:
        x = block(x)
    last = visual.transformer.resblocks[-1]
    parts = F.linear(last.ln_1(x), last.attn.in_proj_weight, last.attn.in_proj_bias).chunk(3, -1)
    x = x + last.ls_1(last.attn.out_proj(plain_mixture(parts, last.attn.num_heads)))
    x = x + last.ls_2(last.mlp(last.ln_2(x)))
    return visual.ln_post(x)[:, 1:] @ visual.proj


def plain_timm(visual: Any, pictures: Tensor) -> Tensor:
    trunk = visual.trunk
    last = trunk.blocks[-1]
    entered: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    trunk.forward_features(pictures)
    hook.remove()
    x = entered[0]
    parts = last.attn.qkv(last.norm1(x)).chunk(3, -1)
    x = x + last.ls1(last.attn.proj(plain_mixture(parts, last.attn.num_heads)))
    x = x + last.ls2(last.mlp(last.norm2(x)))
    patches = trunk.fc_norm(trunk.norm(x))[:, trunk.num_prefix_tokens :]
    return torch.as_tensor(visual.head(trunk.head(patches)))


def plain_resnet(visual: Any, pictures: Tensor) -> Tensor:
    x = visual.stem(pictures)
    for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = stage(x)
    pool, cells = visual.attnpool, x.flatten(2).transpose(1, 2)
    parts = pool.q_proj(cells), pool.k_proj(cells), pool.v_proj(cells)
    return torch.as_tensor(pool.c_proj(plain_mixture(parts, pool.num_heads) / 2))


PLAIN = {
    "resnet": plain_resnet,
    "vit": plain_open_clip,
    "mobileclip-b": plain_timm,
    "vitamin": plain_timm,
}


@pytest.mark.parametrize("family", PLAIN)
@torch.no_grad()
def test_patches_equal_the_plain_form_and_the_global_feature_stays(family: str) -> None:
    clip = family_clip(family)
    by_value, encoder = image_encoder(clip), image_encoder(replace(clip, local_branch="self"))
    assert (by_value.local_branch, encoder.local_branch) == ("value", "self")
    whole, patches = encoder(images())
    torch.testing.assert_close(
        patches, PLAIN[family](clip.model.visual, images()), rtol=1e-4, atol=1e-5
    )
    assert torch.equal(whole, by_value(images())[0])
    assert not torch.allclose(patches, by_value(images())[1], atol=1e-3)


@torch.no_grad()
def test_a_rectangle_keeps_the_branch() -> None:
    for family in ("vit", "mobileclip-b", "resnet"):
        encoder = tower_encoder(family_clip(family).model.visual, "tiny", "self")
        assert encoder.at(64, 128).local_branch == "self"


@pytest.mark.parametrize("family", ["siglip", "coca", "eva02", "vit-relative", "convnext"])
def test_other_towers_refuse_it_in_one_line(family: str) -> None:
    clip = replace(family_clip(family), local_branch="self")
    with pytest.raises(InputError, match=r"model tiny: local branch self needs .* value for this"):
        image_encoder(clip)


def test_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="local branch 'selves': expected one of value, self"):
        tower_encoder(make_clip().model.visual, "tiny", "selves")

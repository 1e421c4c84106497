"""Every family's local branch against the plain form of its one rule.

The rule: what mixes positions last is left out. Plainly: each patch goes through the last mixing
layer alone, as a row of one token or a map of one cell. A softmax over one token is 1, the mean of
one cell is that cell.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from taidpt.clip.model import ClipModel
from taidpt.encoders.local_branch import image_encoder
from taidpt.encoders.one_query import OneQueryPool
from taidpt.encoders.timm_conv import TimmConvEncoder
from taidpt.runtime.errors import InputError, ParityError
from tests.families import FAMILIES, SIZE, family_config, random_norms
from tests.taidpt.tiny import make_clip

TIMM_TRANSFORMERS = (
    "mobileclip-b",
    "siglip",
    "vitamin",
    "vit-relative",
    "eva01",
    "eva02",
    "eva02-postnorm",
    "perception",
)
TIMM_MAPS = (
    "mobileclip",
    "convnext",
    "convnext-mlp",
    "swin",
    "efficientnet",
    "mobilenet",
    "mobilenet-norm",
    "timm-resnet",
    "regnet",
)
OPEN_CLIP_VITS = ("vit", "vit-patch-dropout", "vit-custom-attention", "coca")


@cache
def family_clip(family: str) -> ClipModel:
    clip = make_clip(family_config(family), custom_text=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        random_norms(clip.model.visual)
    clip.model.eval().requires_grad_(False)
    return clip


def images(count: int = 2, size: int = SIZE) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def alone(x: Tensor) -> Tensor:
    """Tokens [B, P, W] → each a row of its own, [B · P, 1, W]."""
    return x.flatten(0, 1)[:, None]


def plain_open_clip(visual: Any, pictures: Tensor) -> Tensor:
    x = visual._embeds(pictures)
    pooled_by_attention = visual.attn_pool is not None
    blocks = visual.transformer.resblocks
    for block in blocks if pooled_by_attention else blocks[:-1]:
        x = block(x)
    patches = alone(x[:, 1:])
    patches = visual.attn_pool(patches)[:, :1] if pooled_by_attention else blocks[-1](patches)
    return (visual.ln_post(patches)[:, 0] @ visual.proj).unflatten(0, (len(x), -1))


def plain_timm_transformer(visual: Any, pictures: Tensor) -> Tensor:
    trunk = copy.deepcopy(visual.trunk)
    entered: list[Tensor] = []
    trunk.blocks[-1].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    tokens = trunk.forward_features(pictures)
    if trunk.attn_pool if hasattr(trunk, "attn_pool") else None:
        patches = trunk.attn_pool(alone(tokens[:, trunk.num_prefix_tokens :]))
    else:
        last = trunk.blocks[-1]
        if hasattr(last.attn, "rel_pos"):
            last.attn.rel_pos = None  # a bias on the one logit changes nothing
        patches = trunk.norm(last(alone(entered[0][:, trunk.num_prefix_tokens :])))[:, 0]
    return visual.head(trunk.head(trunk.fc_norm(patches))).unflatten(0, (len(pictures), -1))


def plain_timm_map(visual: Any, pictures: Tensor) -> Tensor:
    trunk = visual.trunk
    cells = trunk.forward_features(pictures)
    if getattr(getattr(trunk, "head", None), "input_fmt", "NCHW") == "NHWC":
        rows = cells.flatten(0, 2)[:, None, None]
    else:
        rows = cells.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None]
    return visual.head(trunk.forward_head(rows)).unflatten(0, (len(pictures), -1))


PLAIN = {
    **dict.fromkeys(OPEN_CLIP_VITS, plain_open_clip),
    **dict.fromkeys(TIMM_TRANSFORMERS, plain_timm_transformer),
    **dict.fromkeys(TIMM_MAPS, plain_timm_map),
}


def test_every_family_has_a_plain_form_here() -> None:
    assert set(PLAIN) | {"resnet"} == set(FAMILIES)  # resnet's is in test_local_branch.py


@pytest.mark.parametrize("family", PLAIN)
def test_global_is_clips_own_and_patches_are_the_plain_forms(family: str) -> None:
    clip = family_clip(family)
    encoder = image_encoder(clip)
    with torch.no_grad():
        global_features, patches = encoder(images())
        own = clip.model.visual(images())
        expected = PLAIN[family](clip.model.visual, images())
    own = own[0] if isinstance(own, tuple) else own  # CoCa's gives its tokens too
    torch.testing.assert_close(global_features, own, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(patches, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder.zero_shot_features(images()), own, rtol=1e-4, atol=1e-5)
    rows, columns = encoder.grid(SIZE, SIZE)
    assert patches.shape == (2, rows * columns, 32)
    # the branch tells patches apart: a pooled feature repeated would pass for nothing
    assert float(patches.std(dim=1).mean()) > 1e-3 * float(patches.abs().mean())


@pytest.mark.parametrize(
    ("family", "size"),
    [
        ("mobileclip", 96),
        ("convnext", 96),
        ("mobileclip", 80),
        *((family, size) for family in TIMM_MAPS[4:] for size in (75, 96)),
    ],
)
def test_maps_of_cells_take_other_sizes(family: str, size: int) -> None:
    encoder = image_encoder(family_clip(family))
    rows, columns = encoder.grid(size, size)
    assert encoder(images(1, size))[1].shape == (1, rows * columns, 32)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "swin"])
def test_towers_take_rectangles(family: str) -> None:
    """For --view wide: patches of a rectangle row by row, in reach of their own pixels."""
    encoder = image_encoder(family_clip(family))
    wide = encoder.at(SIZE, 2 * SIZE)
    assert encoder.at(SIZE, SIZE) is encoder
    rows, columns = wide.grid(SIZE, 2 * SIZE)
    assert columns == 2 * rows
    square = images(1)
    twice = torch.cat([square, square], dim=3)
    changed = twice.clone()
    changed[..., SIZE // 4 : SIZE // 2, -SIZE // 4 :] += 2
    with torch.no_grad():
        pooled, before = wide(twice)
        _, after = wide(changed)
        assert encoder(square)[0].shape == pooled.shape  # the tower itself is unchanged
    assert before.shape == (1, rows * columns, 32)
    moved = (after - before).norm(dim=2).reshape(rows, columns).sum(dim=0)
    assert int(moved.argmax()) >= columns * 3 // 4


def test_swin_takes_no_rectangle() -> None:
    with pytest.raises(InputError, match="takes no input of 128x64; use --view whole or tiles:2"):
        image_encoder(family_clip("swin")).at(SIZE, 2 * SIZE)


def test_positions_of_a_vit_are_interpolated() -> None:
    """Positions that rise evenly from left to right rise half as fast in twice the width."""
    encoder = image_encoder(family_clip("vit"))
    side = SIZE // 16
    slope = torch.arange(side).repeat(side)[:, None]
    encoder.visual.positional_embedding.data[1:] = slope.float()
    found = encoder.at(SIZE, 2 * SIZE).visual.positional_embedding[1:].reshape(side, 2 * side, -1)
    inner = found[:, 3 : 2 * side - 3]  # at the sides the grid ends
    expected = (torch.arange(3, 2 * side - 3) + 0.5) / 2 - 0.5
    torch.testing.assert_close(inner, expected[None, :, None].expand_as(inner))


@pytest.mark.parametrize("family", ["siglip", "vit", "eva02"])
def test_towers_with_fixed_positions_refuse_other_sizes(family: str) -> None:
    with pytest.raises(InputError, match="takes 64 × 64 pixels, got 96 × 96"):
        image_encoder(family_clip(family))(images(1, 96))


def test_mobileclips_branches_are_folded_and_the_users_model_is_left_alone() -> None:
    clip = family_clip("mobileclip")

    def branches(module: nn.Module) -> int:
        return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())

    before = branches(clip.model.visual)
    encoder = image_encoder(clip)
    assert isinstance(encoder, TimmConvEncoder)
    assert branches(encoder) < before / 3
    assert branches(clip.model.visual) == before


def test_a_fold_that_changes_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm.utils.model

    def spoil(model: nn.Module) -> nn.Module:
        spoilt = copy.deepcopy(model)
        spoilt.head.fc.weight.data *= 1.5  # type: ignore[union-attr, operator]
        return spoilt

    monkeypatch.setattr(timm.utils.model, "reparameterize_model", spoil)
    with pytest.raises(ParityError, match=r"FastVit changed its feature by .* please report"):
        image_encoder(family_clip("mobileclip"))


def test_one_query_equals_torchs_attention() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(24, 3, batch_first=True)
    nn.init.normal_(attention.in_proj_bias)
    query, tokens = torch.randn(24), torch.randn(2, 5, 24)
    mixed, _ = attention(query.expand(2, 1, 24), tokens, tokens, need_weights=False)
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    asked = nn.functional.linear(query, weights[0], biases[0])
    pool = OneQueryPool(
        asked.detach(), weights[1].detach(), (weights[2].detach(), biases[2].detach()), 3
    )
    found, values = pool(tokens)
    torch.testing.assert_close(attention.out_proj(found), mixed[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values, nn.functional.linear(tokens, weights[2], biases[2]))


@pytest.mark.parametrize(
    ("vision", "reason"),
    [
        ({"timm_model_name": "ghostnet_050", "timm_pool": "avg"}, "timm's GhostNet"),
        (
            {"timm_model_name": "resnet18", "timm_pool": "abs_attn", "timm_proj": ""},
            "its ResNet pools by 'nothing'",
        ),
        ({**FAMILIES["convnext"], "timm_pool": "max"}, "pools by 'max'"),
        ({**FAMILIES["coca"], "attentional_pool": "parallel"}, "attentional pooling is parallel"),
        ({**FAMILIES["coca"], "pool_type": "avg"}, "attentional pooling is parallel"),
    ],
)
def test_other_towers_are_refused_by_name(vision: dict[str, Any], reason: str) -> None:
    clip = make_clip({"image_size": SIZE, **vision}, custom_text=True)
    with pytest.raises(InputError, match=rf"model tiny has no local branch: .*{reason}.*ConvNeXt"):
        image_encoder(clip)

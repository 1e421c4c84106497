"""One miniature of every family of image towers that open_clip offers: real code, random weights.

The towers of timm are registered under names of our own, since open_clip's settings carry nothing
but a timm model's name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from timm.models import (
    ConvNeXt,
    EfficientNet,
    Eva,
    FastVit,
    MobileNetV3,
    RegNet,
    ResNet,
    SwinTransformer,
    VisionTransformer,
    register_model,
)
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.fastvit import RepConditionalPosEnc
from timm.models.regnet import RegNetCfg
from timm.models.resnet import BasicBlock
from timm.models.vision_transformer_hybrid import ConvStem, HybridEmbed
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from timm.models.vitamin import GeGluMlp, MbConvStages, VitCfg, VitConvCfg
from torch import nn

__all__ = ["FAMILIES", "SIZE", "family_config", "random_norms"]

SIZE = 64  # pixels; MobileCLIP's and ConvNeXt's last maps are 2 × 2 cells then
_TOKENS = {"img_size": SIZE, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 4}


def _register(name: str, build: Callable[..., nn.Module], **fixed: Any) -> None:
    def create(pretrained: bool = False, **given: Any) -> nn.Module:
        own = {key: value for key, value in given.items() if not key.startswith("pretrained_")}
        own.pop("cache_dir", None)
        trunk = build(**{**fixed, **own})
        trunk.default_cfg = {"pool_size": (7, 7)}  # open_clip asks for it
        return trunk

    create.__name__ = name
    create.__module__ = __name__
    globals()[name] = register_model(create)  # which adds the name to this module's __all__


_mobile = {
    "layers": (1, 1, 1, 1),
    "embed_dims": (16, 16, 32, 64),
    "mlp_ratios": (2, 2, 2, 2),
    "se_downsamples": (False, False, True, True),
    "pos_embs": (None, None, None, partial(RepConditionalPosEnc, spatial_shape=(7, 7))),
    "token_mixers": ("repmixer", "repmixer", "repmixer", "attention"),
    "lkc_use_act": True,
}


def _hybrid(make_backbone: Callable[[], nn.Module], **fixed: Any) -> Callable[..., nn.Module]:
    """A transformer behind convolutions, which are made anew for every model."""

    def build(**given: Any) -> nn.Module:
        embed = partial(HybridEmbed, backbone=make_backbone(), proj=False)
        return VisionTransformer(
            embed_layer=embed, **{**_TOKENS, **fixed, "patch_size": 1, **given}
        )

    return build


def _conv_stem() -> nn.Module:
    return ConvStem(3, 3, (16, 16, 64), (4, 2, 2), (4, 2, 2), padding=0, act_layer=nn.GELU)


def _mb_stages() -> nn.Module:
    norms = VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6)
    return MbConvStages(
        VitCfg(embed_dim=(16, 32, 64), depths=(1, 1, 1), stem_width=16, conv_cfg=norms)
    )


_register("taidpt_mini_fastvit", FastVit, **_mobile)
_register("taidpt_mini_mci_vit", _hybrid(_conv_stem, no_embed_class=True))
_register(
    "taidpt_mini_vitamin",
    _hybrid(_mb_stages, class_token=False, global_pool="avg", mlp_layer=GeGluMlp, mlp_ratio=2.0),
)
_register(
    "taidpt_mini_siglip",
    VisionTransformer,
    **{**_TOKENS, "embed_dim": 32},
    class_token=False,
    act_layer="gelu_tanh",
    init_values=0.5,
)
_register("taidpt_mini_relpos", VisionTransformerRelPos, **_TOKENS, class_token=True)
_register("taidpt_mini_convnext", ConvNeXt, depths=(1, 1, 1, 1), dims=(16, 16, 32, 64))
_register(
    "taidpt_mini_swin",
    SwinTransformer,
    img_size=SIZE,
    window_size=2,
    embed_dim=16,
    depths=(1, 1, 1, 2),
    num_heads=(1, 2, 4, 8),
)


def _mb_net(kind: Callable[..., nn.Module], **fixed: Any) -> Callable[..., nn.Module]:
    """EfficientNet or MobileNet of one block a stage, its blocks made anew for every model."""

    def build(**given: Any) -> nn.Module:
        stages = [["ds_r1_k3_s2_e1_c16"], *([f"ir_r1_k3_s2_e2_c{c}_se0.25"] for c in (16, 24, 32))]
        return kind(decode_arch_def(stages), num_features=64, stem_size=8, **fixed, **given)

    return build


_register("taidpt_mini_efficientnet", _mb_net(EfficientNet, pad_type="same"))
_register("taidpt_mini_mobilenet", _mb_net(MobileNetV3))
_register("taidpt_mini_mobilenet_norm", _mb_net(MobileNetV3, head_norm=True))
_register(
    "taidpt_mini_resnet",
    ResNet,
    block=BasicBlock,
    layers=(1, 1, 1, 1),
    channels=(16, 16, 32, 64),
    avg_down=True,
)
_regnet = RegNetCfg(depth=5, w0=16, wa=24.0, wm=2.0, group_size=8, se_ratio=0.25)
_register("taidpt_mini_regnet", RegNet, cfg=_regnet)
# timm starts EVA's head near zero; then every feature would be its bias, whatever the picture.
_eva = {**_TOKENS, "head_init_scale": 1.0}
_rotary = {"use_rot_pos_emb": True, "ref_feat_shape": (4, 4), **_eva}
_register(
    "taidpt_mini_eva02",
    Eva,
    **_rotary,
    qkv_fused=False,
    swiglu_mlp=True,
    scale_mlp=True,
    scale_attn_inner=True,
)
_register("taidpt_mini_eva01", Eva, **_eva, init_values=0.5)
_register("taidpt_mini_eva02_postnorm", Eva, **_eva, use_post_norm=True)
_register(
    "taidpt_mini_pe",
    Eva,
    **_rotary,
    attn_type="rope",
    use_pre_transformer_norm=True,
    rope_grid_offset=1.0,
    rope_grid_indexing="xy",
    attn_pool_num_heads=8,
)

_VIT = {"layers": 2, "width": 64, "patch_size": 16, "head_width": 16}


def _timm(name: str, pool: str = "", proj: str | None = "linear") -> dict[str, Any]:
    return {"timm_model_name": f"taidpt_mini_{name}", "timm_pool": pool, "timm_proj": proj}


# Family → open_clip's settings of its image tower. Names are those of docs/models.md.
FAMILIES: dict[str, dict[str, Any]] = {
    "resnet": {"layers": [1, 1, 1, 1], "width": 16, "patch_size": None, "head_width": 64},
    "vit": _VIT,
    "vit-patch-dropout": {**_VIT, "patch_dropout": 0.5},
    "vit-custom-attention": {**_VIT, "qk_norm": True, "scale_heads": True, "scale_attn": True},
    "coca": {**_VIT, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
    "mobileclip": _timm("fastvit", "avg", None),
    "mobileclip-b": _timm("mci_vit", "token", None),
    "siglip": _timm("siglip", "map", "none"),
    "convnext": _timm("convnext"),
    "convnext-mlp": _timm("convnext", "", "mlp"),
    "swin": _timm("swin"),
    "efficientnet": _timm("efficientnet", "avg"),
    "mobilenet": _timm("mobilenet", "avg", None),
    "mobilenet-norm": _timm("mobilenet_norm", "avg", None),
    "timm-resnet": _timm("resnet", "avg"),
    "regnet": _timm("regnet", "avg", "mlp"),
    "vitamin": _timm("vitamin"),
    "vit-relative": _timm("relpos"),
    "eva01": _timm("eva01", "token", None),
    "eva02": _timm("eva02", "token", None),
    "eva02-postnorm": _timm("eva02_postnorm", "token", None),
    "perception": _timm("pe", "map", None),
}


@cache
def family_config(family: str) -> dict[str, Any]:
    """open_clip's settings of a family's miniature image tower, for pictures of SIZE pixels."""
    return {"image_size": SIZE, **FAMILIES[family]}


def random_norms(model: nn.Module) -> None:
    """Give norms, scales and statistics random values, so that no test passes by an identity."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
        for name, value in model.named_parameters():
            if value.dim() == 1:
                value.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)

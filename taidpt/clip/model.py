"""CLIP models through open_clip: one name and one weight source give frozen fp32 towers."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from taidpt.clip.tokenizer_files import load_tokenizer, quiet
from taidpt.clip.weights import (
    is_torchscript_archive,
    licence_note,
    load_weights,
    plain_weights,
    state_sha256,
)
from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.atomic import sha256_of

__all__ = ["EMBEDDED_MODEL", "ClipModel", "check_clip_source", "load_clip"]

EMBEDDED_MODEL = "toyworld"
_EMBEDDED_WEIGHTS = "embedded"
_OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
_OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ClipModel:
    """A frozen CLIP with everything that names it.

    Attributes:
        model: open_clip's model, fp32, eval mode, no parameter trainable.
        tokenizer: open_clip's tokenizer of this model: texts → token numbers [N, context_length].
        name: open_clip's model name, or "toyworld".
        pretrained: the weight source: an open_clip tag, a path, "random:SEED", or "embedded".
        weights_sha256: of the weight file; of the weights themselves where there is no file.
        licence: what is known of the weights' licence.
        image_size: side of the square input in pixels.
        mean, std: normalisation of RGB in [0, 1].
        embed_dim: D, the joint space.
        context_length: the most tokens that a text may have, start and end included.
        is_causal: whether a token of the text tower sees only those before it.
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

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> ClipModel:
        """Move the towers (in place) and return self."""
        self.model.to(device)
        return self

    def identity(self) -> dict[str, Any]:
        """What a file derived from this model records of it, JSON-ready."""
        return {
            "name": self.name,
            "pretrained": self.pretrained,
            "weights_sha256": self.weights_sha256,
            "licence": self.licence,
            "embed_dim": self.embed_dim,
        }


@dataclass(frozen=True)
class _Source:
    """Where weights come from, resolved: how they are called, from which file, how normalised."""

    label: str
    licence: str
    path: Path | None = None
    tag: str | None = None
    mean: tuple[float, float, float] = _OPENAI_MEAN
    std: tuple[float, float, float] = _OPENAI_STD


def load_clip(name: str, pretrained: str, seed: int = 0) -> ClipModel:
    """Load a CLIP, frozen, in fp32 and eval mode, on the CPU.

    Args:
        name: an open_clip model name such as "RN50-quickgelu", or "toyworld", the shipped model.
        pretrained: an open_clip tag such as "openai"; a local file (safetensors, `.pt`, OpenAI's
            archive); the word "random" (or "random:SEED"); "embedded" for the shipped model.
        seed: of random weights, where `pretrained` names none.
    Raises:
        InputError: an unknown model or tag, weights that cannot be fetched, read or fitted, a
            tokenizer that is not here and cannot be fetched.
        MissingDependencyError: a tokenizer of Hugging Face without its packages.
    """
    if name == EMBEDDED_MODEL or pretrained == _EMBEDDED_WEIGHTS:
        return _load_embedded(name, pretrained)
    _check_name(name)
    source = _resolve(name, pretrained, seed)
    tokenizer = load_tokenizer(name)  # what it lacks should show before weights are fetched
    source = _fetch(name, source)
    if source.path is None:
        model = _build(name, source)
    else:
        with plain_weights(source.path) as weights:
            model = _build(name, source)
            load_weights(model, weights, source.path)
    return _freeze(model, tokenizer, name, source)


def check_clip_source(name: str, pretrained: str) -> None:
    """Raise InputError when `load_clip` is sure to; fetches and builds nothing."""
    if name == EMBEDDED_MODEL or pretrained == _EMBEDDED_WEIGHTS:
        _check_embedded(name, pretrained)
        return
    _check_name(name)
    _resolve(name, pretrained, 0)


def _check_name(name: str) -> None:
    import open_clip

    known = open_clip.list_models()
    if name in known:
        return
    close = difflib.get_close_matches(name, [*known, EMBEDDED_MODEL], n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}" if close else "see open_clip.list_models()"
    raise InputError(f"unknown model {name!r}: {hint}?")


def _resolve(name: str, pretrained: str, seed: int) -> _Source:
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    word, _, number = pretrained.partition(":")
    if word == "random":
        if number and not number.isdigit():
            raise InputError(f"random weights {pretrained!r}: expected random or random:SEED")
        mean, std = _normalisation(name)
        label = f"random:{int(number) if number else seed}"
        return _Source(label, licence_note("random"), mean=mean, std=std)
    if Path(pretrained).is_file():
        return _file_source(name, pretrained)
    settings = get_pretrained_cfg(name, pretrained)
    if not settings:
        tags = ", ".join(list_pretrained_tags_by_model(name)) or "none"
        raise InputError(
            f"{name} has no weights {pretrained!r}: neither a file here nor one of its tags "
            f"({tags}); `random` gives random weights"
        )
    _check_activation(name, bool(settings.get("quick_gelu")), pretrained)
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    return _Source(pretrained, licence_note(pretrained), None, pretrained, mean, std)


def _file_source(name: str, pretrained: str) -> _Source:
    path = Path(pretrained)
    if is_torchscript_archive(path):  # only OpenAI published those, all with QuickGELU
        _check_activation(name, True, pretrained)
    mean, std = _normalisation(name)
    return _Source(pretrained, licence_note(""), path, mean=mean, std=std)


def _normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation that all published weights of a model share; else OpenAI's."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    settings = [get_pretrained_cfg(name, tag) for tag in list_pretrained_tags_by_model(name)]
    pairs = {(tuple(item["mean"]), tuple(item["std"])) for item in settings if "mean" in item}
    return pairs.pop() if len(pairs) == 1 else (_OPENAI_MEAN, _OPENAI_STD)


def _check_activation(name: str, quick_gelu: bool, pretrained: str) -> None:
    """Weights trained with QuickGELU give wrong features with GELU, and silently so."""
    import open_clip

    has_it = bool((open_clip.get_model_config(name) or {}).get("quick_gelu", False))
    twin = f"{name}-quickgelu"
    if quick_gelu and not has_it and twin in open_clip.list_models():
        raise InputError(f"weights {pretrained} were trained with QuickGELU: use --model {twin}")


def _fetch(name: str, source: _Source) -> _Source:
    """The source with its file on this machine."""
    if source.tag is None:
        return source
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    try:
        with quiet():
            path = download_pretrained(get_pretrained_cfg(name, source.tag))
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"weights {source.tag} of {name} could not be fetched ({reason}); "
            "give a local file as --pretrained instead"
        ) from error
    return replace(source, path=Path(path))


def _build(name: str, source: _Source) -> nn.Module:
    """The architecture, with random weights of the source's seed (0 when a file follows)."""
    import open_clip

    seed = int(source.label.partition(":")[2]) if source.label.startswith("random:") else 0
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = open_clip.create_model(name, pretrained_hf=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"model {name} could not be built: {reason}") from error
    return model


def _check_embedded(name: str, pretrained: str) -> None:
    if (name, pretrained) != (EMBEDDED_MODEL, _EMBEDDED_WEIGHTS):
        raise InputError(
            f"the shipped model is --model {EMBEDDED_MODEL} --pretrained {_EMBEDDED_WEIGHTS}, "
            f"got --model {name} --pretrained {pretrained}"
        )


def _load_embedded(name: str, pretrained: str) -> ClipModel:
    """The shipped toy-world model: an open_clip CLIP with a cut vocabulary."""
    _check_embedded(name, pretrained)
    from open_clip.model import CLIP
    from open_clip.tokenizer import SimpleTokenizer

    from taidpt.toyworld import assets

    config = json.loads(assets.config_path().read_text("utf-8"))
    model = CLIP(**config)
    load_weights(model, assets.weights_path())
    tokenizer = SimpleTokenizer(
        bpe_path=str(assets.merges_path()), context_length=config["text_cfg"]["context_length"]
    )
    source = _Source(pretrained, licence_note(pretrained), assets.weights_path())
    return _freeze(model, tokenizer, name, source)


def _freeze(model: Any, tokenizer: Any, name: str, source: _Source) -> ClipModel:
    model.float().eval().requires_grad_(False)
    tower = getattr(model, "text", model)
    projection = getattr(model.visual, "output_dim", None)
    return ClipModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        pretrained=source.label,
        weights_sha256=(
            sha256_of(source.path) if source.path else state_sha256(model.state_dict())
        ),
        licence=source.licence,
        image_size=_square(model.visual.image_size, name),
        mean=source.mean,
        std=source.std,
        embed_dim=int(projection) if projection else _probe_dim(model),
        context_length=int(model.context_length),
        is_causal=getattr(tower, "attn_mask", None) is not None,
    )


def _square(size: Any, name: str) -> int:
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    if height != width:
        raise InputError(f"model {name} takes {height} × {width} pictures: only squares are known")
    return int(height)


def _probe_dim(model: Any) -> int:
    """Width of the joint space, for towers that do not say it (timm's)."""
    side = model.visual.image_size
    height, width = side if isinstance(side, (tuple, list)) else (side, side)
    with torch.no_grad():
        return int(model.encode_image(torch.zeros(1, 3, height, width)).shape[-1])

"""Which model and which weights a name and a weight source mean; nothing is downloaded or built.

A model is one of open_clip's names, `toyworld`, or a folder in open_clip's form: a file
`open_clip_config.json` with the architecture and preprocessing, the weights, and the tokenizer's
files where it needs any. open_clip calls such a folder `local-dir:FOLDER`.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.clip.download import check_available
from taidpt.clip.weights import is_torchscript_archive, licence_note
from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.json_reader import parse_json
from taidpt.runtime.storage.regular_file import read_regular

__all__ = ["EMBEDDED_MODEL", "EMBEDDED_WEIGHTS", "Source", "resolve_source"]

EMBEDDED_MODEL = "toyworld"
EMBEDDED_WEIGHTS = "embedded"
_FOLDER_PREFIX = "local-dir:"
_CONFIG_FILE = "open_clip_config.json"
# open_clip's order of preference, then whatever else it would take.
_WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
_WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.pth", "*.pt")
_OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
_OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Source:
    """A model and its weights.

    Attributes:
        name: open_clip's model name, "toyworld", or the absolute path of a folder.
        label: the weights' name in records: a tag, a path, "random:SEED" or "embedded".
        licence: what is known of the weights' licence.
        mean, std: normalisation of RGB in [0, 1].
        path: the weight file; None where there is none or it is not fetched yet.
        tag: open_clip's tag of published weights.
        seed: of random weights.
        config: the architecture of a folder or of "toyworld"; None for open_clip's own.
    """

    name: str
    label: str
    licence: str
    mean: Triple = _OPENAI_MEAN
    std: Triple = _OPENAI_STD
    path: Path | None = None
    tag: str | None = None
    seed: int = 0
    config: dict[str, Any] | None = None

    @property
    def folder(self) -> Path | None:
        """The model's folder, None for a named model."""
        return Path(self.name) if self.config is not None and self.name != EMBEDDED_MODEL else None


def resolve_source(name: str, pretrained: str | None = None, seed: int = 0) -> Source:
    """Resolve a model name and a weight source.

    Args:
        name: an open_clip model name such as "RN50-quickgelu"; a folder in open_clip's form; or
            "toyworld", the shipped model.
        pretrained: an open_clip tag such as "openai"; a local file (safetensors, `.pt`, OpenAI's
            archive); "random" or "random:SEED"; "embedded" for the shipped model. None for a
            folder's or the shipped model's own weights. A folder here replaces the model's folder,
            for files that record a folder which has moved.
        seed: of random weights, where `pretrained` names none.
    Raises:
        InputError: an unknown model or tag, a folder with a part missing, or published weights that
            are not here and cannot be reached.
    """
    if name == EMBEDDED_MODEL or pretrained == EMBEDDED_WEIGHTS:
        return _embedded_source(name, pretrained)
    folder = _model_folder(name, pretrained)
    if folder is not None:
        if pretrained is not None and Path(pretrained).is_dir():
            pretrained = None
        return _folder_source(folder, pretrained, seed)
    _check_name(name)
    if pretrained is None:
        raise InputError(f"model {name} needs weights: give --pretrained TAG or FILE")
    if pretrained.partition(":")[0] == "random":
        mean, std = _published_normalisation(name)
        return _random_source(name, pretrained, seed, mean, std)
    if Path(pretrained).is_file():
        path = Path(pretrained)
        if is_torchscript_archive(path):  # only OpenAI published those, all with QuickGELU
            _check_activation(name, True, pretrained)
        mean, std = _published_normalisation(name)
        return Source(name, pretrained, licence_note(""), mean, std, path)
    return _tagged_source(name, pretrained)


def _embedded_source(name: str, pretrained: str | None) -> Source:
    """The shipped toy-world model: an open_clip CLIP with a small vocabulary."""
    if name != EMBEDDED_MODEL or pretrained not in (EMBEDDED_WEIGHTS, None):
        raise InputError(
            f"the shipped model is --model {EMBEDDED_MODEL} --pretrained {EMBEDDED_WEIGHTS}, "
            f"got --model {name} --pretrained {pretrained}"
        )
    from taidpt.toyworld import assets

    config = parse_json(assets.path("model.json").read_text("utf-8"))
    licence = licence_note(EMBEDDED_WEIGHTS)
    path = assets.path("model.safetensors")
    return Source(name, EMBEDDED_WEIGHTS, licence, path=path, config=config)


def _model_folder(name: str, pretrained: str | None) -> Path | None:
    """The folder that a name or a weight source means, None for a named model."""
    if pretrained is not None and Path(pretrained).is_dir():
        return Path(pretrained).absolute()
    folder = Path(name.removeprefix(_FOLDER_PREFIX))
    if name.startswith(_FOLDER_PREFIX) or folder.is_absolute() or folder.is_dir():
        if not folder.is_dir():
            raise InputError(f"model {name}: there is no such folder")
        return folder.absolute()
    return None


def _folder_source(folder: Path, pretrained: str | None, seed: int) -> Source:
    config, preprocess = _read_config(folder / _CONFIG_FILE)
    mean = _triple(preprocess.get("mean", _OPENAI_MEAN), "mean", folder)
    std = _triple(preprocess.get("std", _OPENAI_STD), "std", folder)
    if pretrained is not None and pretrained.partition(":")[0] == "random":
        return _random_source(str(folder), pretrained, seed, mean, std, config)
    path = _folder_weights(folder, pretrained)
    label = path.name if path.parent == folder else str(path)
    return Source(str(folder), label, licence_note(""), mean, std, path, config=config)


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Architecture and preprocessing of an open_clip_config.json."""
    expected = "expected open_clip's JSON with model_cfg and preprocess_cfg"
    try:
        document = parse_json(read_regular(path))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {expected}") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} cannot be read ({reason}); {expected}") from None
    config = document.get("model_cfg") if isinstance(document, dict) else None
    parts = ("vision_cfg", "text_cfg")
    if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in parts):
        raise InputError(f"{path}: no model_cfg with vision_cfg and text_cfg; {expected}")
    preprocess = document.get("preprocess_cfg", {})
    if not isinstance(preprocess, dict):
        raise InputError(f"{path}: preprocess_cfg is no object; {expected}")
    usual = {"interpolation": "bicubic", "resize_mode": "shortest"}
    other = {key: preprocess[key] for key in usual if preprocess.get(key, usual[key]) != usual[key]}
    if other:
        logging.getLogger(__name__).warning(
            "%s asks for %s; pictures are resized on their short side, bicubic, and cropped",
            path,
            ", ".join(f"{key} {value}" for key, value in other.items()),
        )
    return config, preprocess


def _triple(values: Any, name: str, folder: Path) -> Triple:
    numbers = values if isinstance(values, (list, tuple)) else ()
    if len(numbers) != 3 or not all(isinstance(item, (int, float)) for item in numbers):
        raise InputError(f"{folder / _CONFIG_FILE}: {name} should be three numbers, got {values!r}")
    red, green, blue = map(float, numbers)
    return red, green, blue


def _folder_weights(folder: Path, pretrained: str | None) -> Path:
    if pretrained is not None:
        for path in (folder / pretrained, Path(pretrained)):
            if path.is_file():
                return path.absolute()  # not resolved: caches link to files without a suffix
        raise InputError(
            f"model {folder} has no weights {pretrained!r}: no such file there or here; leave "
            "--pretrained out for the folder's own"
        )
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for pattern in _WEIGHT_PATTERNS for path in folder.glob(pattern))
    if not others:
        raise InputError(f"{folder} holds no weights: expected {_WEIGHT_FILES[0]}")
    if len(others) > 1:
        names = ", ".join(path.name for path in others[:5])
        raise InputError(f"{folder} holds several weight files ({names}): name one by --pretrained")
    return others[0]


def _random_source(
    name: str,
    pretrained: str,
    seed: int,
    mean: Triple,
    std: Triple,
    config: dict[str, Any] | None = None,
) -> Source:
    _, _, number = pretrained.partition(":")
    if number and not number.isdigit():
        raise InputError(f"random weights {pretrained!r}: expected random or random:SEED")
    seed = int(number) if number else seed
    label = f"random:{seed}"
    return Source(name, label, licence_note("random"), mean, std, seed=seed, config=config)


def _tagged_source(name: str, pretrained: str) -> Source:
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    settings = get_pretrained_cfg(name, pretrained)
    if not settings:
        tags = ", ".join(list_pretrained_tags_by_model(name)) or "none"
        raise InputError(
            f"{name} has no weights {pretrained!r}: neither a file here nor one of its tags "
            f"({tags}); `random` gives random weights"
        )
    _check_activation(name, bool(settings.get("quick_gelu")), pretrained)
    check_available(name, pretrained)
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    return Source(name, pretrained, licence_note(pretrained), mean, std, tag=pretrained)


def _check_name(name: str) -> None:
    import open_clip

    known = open_clip.list_models()
    if name in known:
        return
    close = difflib.get_close_matches(name, [*known, EMBEDDED_MODEL], n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}" if close else "see open_clip.list_models()"
    raise InputError(f"unknown model {name!r}: {hint}? There is no folder of that name either")


def _published_normalisation(name: str) -> tuple[Triple, Triple]:
    """Mean and deviation that all published weights of a model share; otherwise OpenAI's."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    settings = [get_pretrained_cfg(name, tag) for tag in list_pretrained_tags_by_model(name)]
    pairs = {(tuple(item["mean"]), tuple(item["std"])) for item in settings if "mean" in item}
    return pairs.pop() if len(pairs) == 1 else (_OPENAI_MEAN, _OPENAI_STD)


def _check_activation(name: str, quick_gelu: bool, pretrained: str) -> None:
    """Refuse weights trained with QuickGELU for a GELU model: their features would be wrong."""
    import open_clip

    has_it = bool((open_clip.get_model_config(name) or {}).get("quick_gelu", False))
    twin = f"{name}-quickgelu"
    if quick_gelu and not has_it and twin in open_clip.list_models():
        raise InputError(f"weights {pretrained} were trained with QuickGELU: use --model {twin}")

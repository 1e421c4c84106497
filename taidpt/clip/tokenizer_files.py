"""The tokenizer of a model, or one line that says what is missing for it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from taidpt.clip.download import quiet
from taidpt.clip.source import EMBEDDED_MODEL, Source
from taidpt.runtime.errors import InputError, MissingDependencyError

__all__ = ["load_tokenizer"]

_EXTRA = "pip install 'taidpt[siglip]'"
_CONTEXT_LENGTH = 77  # open_clip's default where a configuration names none


def load_tokenizer(source: Source) -> Any:
    """The tokenizer of a model; SigLIP's come from the Hugging Face hub or the model's folder.

    Raises:
        MissingDependencyError: packages that read it are not installed.
        InputError: its files are not here and cannot be fetched, or cannot be read.
    """
    name = source.name
    files = _files_of(source)
    try:
        with quiet():
            return _open(source)
    except ImportError as error:
        raise MissingDependencyError(
            f"the tokenizer of {name} needs transformers and sentencepiece: {_EXTRA}"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())
        if "sentencepiece" in reason and find_spec("sentencepiece") is None:
            raise MissingDependencyError(
                f"the tokenizer {files} of {name} has no tokenizer.json, and its other files "
                f"need sentencepiece: {_EXTRA}"
            ) from error
        short = reason.partition(". ")[0][:160]
        if source.folder is not None:
            raise InputError(
                f"the tokenizer of {name} cannot be read from that folder ({short}); expected its "
                "tokenizer.json beside open_clip_config.json"
            ) from error
        raise InputError(
            f"the tokenizer {files} of {name} is not here and could not be fetched or read "
            f"({short}); where there is a network: hf download {files} --include '*.json' '*.model'"
        ) from error


def _open(source: Source) -> Any:
    import open_clip
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    if source.config is None:
        return open_clip.get_tokenizer(source.name)
    text = source.config["text_cfg"]
    options = {
        "context_length": int(text.get("context_length", _CONTEXT_LENGTH)),
        **text.get("tokenizer_kwargs", {}),
    }
    if source.name == EMBEDDED_MODEL:
        from taidpt.toyworld import assets

        return SimpleTokenizer(bpe_path=str(assets.path("merges.txt.gz")), **options)
    if "hf_tokenizer_name" not in text:
        return SimpleTokenizer(**options)
    if text.get("tokenizer_mode"):
        options["tokenizer_mode"] = text["tokenizer_mode"]
    return HFTokenizer(source.name, **options)


def _files_of(source: Source) -> str:
    """Where the tokenizer's files come from: a name on the hub, a folder, or the model's name."""
    import open_clip

    if source.config is not None:
        return source.name
    text: dict[str, Any] = (open_clip.get_model_config(source.name) or {}).get("text_cfg", {})
    return str(text.get("hf_tokenizer_name") or source.name)

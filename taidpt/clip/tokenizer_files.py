"""The tokenizer that open_clip has for a model, or one line that says what is missing for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from taidpt.runtime.errors import InputError, MissingDependencyError

__all__ = ["load_tokenizer", "quiet"]

_EXTRA = "pip install 'taidpt[siglip]'"


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back log lines of open_clip and the hub: what matters is said by our errors, once."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def load_tokenizer(name: str) -> Any:
    """open_clip's tokenizer of one of its models; SigLIP's come from the Hugging Face hub.

    Raises:
        MissingDependencyError: packages that read it are not installed.
        InputError: its files are not here and cannot be fetched, or cannot be read.
    """
    import open_clip

    source = _hub_name(name)
    try:
        with quiet():
            return open_clip.get_tokenizer(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"the tokenizer of {name} needs transformers and sentencepiece: {_EXTRA}"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())
        if "sentencepiece" in reason and find_spec("sentencepiece") is None:
            raise MissingDependencyError(
                f"the tokenizer {source} of {name} has no tokenizer.json, and its other files "
                f"need sentencepiece: {_EXTRA}"
            ) from error
        raise InputError(
            f"the tokenizer {source} of {name} is not here and could not be fetched or read "
            f"({reason.partition('. ')[0][:160]}); where there is a network: "
            f"hf download {source} --include '*.json' '*.model'"
        ) from error


def _hub_name(name: str) -> str:
    """Where the tokenizer of a model comes from: the hub's name or a folder, else its own name."""
    import open_clip

    text: dict[str, Any] = (open_clip.get_model_config(name) or {}).get("text_cfg", {})
    return str(text.get("hf_tokenizer_name") or name)

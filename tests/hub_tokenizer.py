"""Small Hugging Face tokenizers on disk, laid out as published ones; nothing is downloaded."""

from __future__ import annotations

import importlib.util
import string
from pathlib import Path
from typing import Any

from tests.support import require

__all__ = ["VOCABULARY", "load_tokenizer", "save_tokenizer"]

_SPECIAL = ("<pad>", "</s>", "<unk>", "<s>")
_WORDS = ("▁a", "▁dog", "▁traffic", "▁light", "▁photo", "▁of", "▁umbrella", "▁and")
_PIECES = ("▁", *string.ascii_letters, *string.digits, *string.punctuation.replace("▁", ""))
VOCABULARY = len(_SPECIAL) + len(_PIECES) + len(_WORDS)


def save_tokenizer(
    folder: Path, pad: str = "</s>", template: str = "$A </s>", side: str = "right"
) -> Path:
    """Save a unigram tokenizer as a folder that `AutoTokenizer` loads.

    Args:
        pad: "</s>" as SigLIP has it (its end token), or "<pad>" as SigLIP 2 has it.
        template: where start "<s>" and end "</s>" stand about a text "$A".
        side: of the padding.
    """
    require("transformers", _is_there(), "pip install 'taidpt[siglip]'")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    scores = [*((token, 0.0) for token in _SPECIAL), *((piece, -8.0) for piece in _PIECES)]
    unigram = models.Unigram([*scores, *((word, -2.0) for word in _WORDS)], unk_id=2)
    tokenizer = Tokenizer(unigram)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = [(token, _SPECIAL.index(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=specials
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token=pad,
        padding_side=side,
    ).save_pretrained(folder)
    return folder


def load_tokenizer(folder: Path, **options: Any) -> Any:
    """open_clip's wrapping of a saved tokenizer, for texts of 24 tokens."""
    from open_clip.tokenizer import HFTokenizer

    return HFTokenizer(str(folder), context_length=24, **options)


def _is_there() -> bool:
    return importlib.util.find_spec("transformers") is not None

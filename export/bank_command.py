"""`taidpt bank`: the class bank of tuned prompts, or of a bundle, as a file of its own."""

from __future__ import annotations

from pathlib import Path

from taidpt.runtime.bank import ClassBank
from taidpt.runtime.bundle import Bundle
from taidpt.runtime.errors import InputError

__all__ = ["make_bank"]


def make_bank(source: Path, output: Path, pretrained: str | None = None) -> ClassBank:
    """Write the bank of prompts (which runs the text tower) or of a bundle (which copies it).

    Args:
        source: a prompts file, or a bundle's folder.
        output: the safetensors file to write.
        pretrained: the weights, where they lie elsewhere than the prompts say.
    Raises:
        InputError: the source is neither, or the output cannot be written.
    """
    if not output.parent.is_dir():
        raise InputError(f"{output}: its folder {output.parent} does not exist")
    bank = Bundle.load(source).bank if source.is_dir() else _baked(source, pretrained)
    try:
        bank.save(output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror}") from None
    return bank


def _baked(source: Path, pretrained: str | None) -> ClassBank:
    from taidpt.clip import load_clip
    from taidpt.export.bake import bake
    from taidpt.export.exporter import with_thresholds
    from taidpt.prompts import TunedPrompts

    prompts = TunedPrompts.load(source)
    name, weights = str(prompts.model["name"]), str(prompts.model["pretrained"])
    bank = bake(prompts, load_clip(name, pretrained or weights))
    return with_thresholds(bank, prompts, prompts.scoring.transform)

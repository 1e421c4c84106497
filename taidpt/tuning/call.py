"""The Python call `taidpt.tune`: the options of the command as keyword arguments."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from taidpt.progress import open_progress
from taidpt.prompts.prompts_file import PromptSettings, TunedPrompts
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.texts.tags import TagSet
from taidpt.tuning.settings import TuneSettings
from taidpt.tuning.text_job import TuneJob, run_job

__all__ = ["tune"]

StrPath = str | os.PathLike[str]
_PATH = (str, os.PathLike)


@optional_packages("taidpt.tune", "tune")
def tune(
    tags: StrPath | Iterable[str],
    texts: StrPath | Iterable[StrPath] = (),
    *,
    model: StrPath,
    pretrained: StrPath | None = None,
    captions: Iterable[str] = (),
    from_names: bool = False,
    background: bool | None = None,
    output: StrPath | None = None,
    method: str = "taidpt",
    epochs: int = 20,
    batch: int = 512,
    lr: float = 1e-4,
    held_out: float = 0.1,
    text_temperature: float = 50.0,
    image_temperature: float = 40.0,
    loss: str = "ranking",
    context_tokens: int = 16,
    name_position: str = "end",
    class_specific: bool = False,
    precision: str = "fp32",
    seed: int = 0,
    resume: bool = False,
    restart: bool = False,
    cache: StrPath | None = None,
    cache_precision: str = "fp32",
    device: str = "auto",
    threads: int | None = None,
    progress: bool = False,
) -> TunedPrompts:
    """Tune prompts for a list of tags on texts alone.

    Args:
        tags: a list of names, or the path of a tag list (`tags.yaml`, or a tag a line).
        texts: paths of caption files: plain text, CSV, TSV, JSONL or COCO's JSON, also gzipped.
        model: open_clip's model name, a folder in open_clip's form, or "toyworld".
        pretrained: weights: an open_clip tag, a file, or "random"; None for those of the folder or
            of "toyworld".
        captions: texts that are in memory already, read before the files.
        from_names: also make texts from the tags' names.
        background: let common nouns compete with the tags; None does so where there are few tags.
        output: the prompts file to write; None keeps the result in memory only.
        method: "taidpt" tunes a global and a local prompt, "tai" the global one alone.
        epochs, batch, lr: passes over the texts, texts a step, learning rate after the first epoch.
        held_out: share of the texts that is kept for thresholds, from 0 to below 1.
        text_temperature: sharpness of the local weights over a caption's tokens.
        image_temperature: the same over a picture's patches, for the export.
        loss: "ranking", "asymmetric", "bce" or "focal".
        context_tokens, name_position, class_specific: the prompts' shape; see `PromptSettings`.
        precision: "fp32", or "bf16" or "fp16" for mixed precision.
        seed: seed of every random number generator.
        resume, restart: continue from the checkpoint beside `output`, or discard it.
        cache: a folder for caption features; None keeps them in memory.
        cache_precision: "fp32" or "fp16".
        device: "cpu", "cuda", or "auto" for a GPU where torch sees one.
        threads: CPU threads; None leaves the number to torch.
        progress: show the progress on standard error.
    Raises:
        InputError: a file, the model or a setting is wrong; nothing was written.
        MissingDependencyError: an optional package is not installed.
    """
    if (resume or restart) and output is None:
        raise InputError("resume and restart need the output whose checkpoint they are about")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    settings = replace(
        TuneSettings(method),
        epochs=epochs,
        batch=batch,
        lr=lr,
        held_out=held_out,
        text_temperature=text_temperature,
        image_temperature=image_temperature,
        loss=loss,
        precision=precision,
        seed=seed,
        prompt=PromptSettings(context_tokens, class_specific, name_position),
    )
    job = TuneJob(
        model=str(model),
        pretrained=None if pretrained is None else str(pretrained),
        tags=Path(tags) if isinstance(tags, _PATH) else TagSet.from_names(tags),
        texts=(Path(texts),) if isinstance(texts, _PATH) else tuple(map(Path, texts)),
        captions=tuple(captions),
        output=None if output is None else Path(output),
        from_names=from_names,
        background=background,
        settings=settings,
        resume=resume,
        restart=restart,
        cache=None if cache is None else Path(cache),
        cache_precision=cache_precision,
        device=device,
    )
    with open_progress(progress) as shown:
        return run_job(job, shown)

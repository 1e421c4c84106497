"""Tune on texts, from files to a prompts file: what `taidpt tune` does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from taidpt.clip.model import ClipModel, load, resolve_source
from taidpt.progress import Progress, SilentProgress
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.errors import InputError
from taidpt.texts.background import background_tags
from taidpt.texts.captions import read_texts
from taidpt.texts.labels import LabelReport, TextLabeler
from taidpt.texts.tags import Tag, TagSet
from taidpt.texts.templates import texts_from_names
from taidpt.tuning.background import unrelated
from taidpt.tuning.execution import is_main_process, local_rank, processes
from taidpt.tuning.settings import RunOptions, TuneSettings
from taidpt.tuning.tuner import LabelledText, tune

__all__ = ["TuneJob", "check_output", "checkpoint_path", "pick_device", "run_job", "save_prompts"]

# Up to this many tags have background tags by default. With C tags a text has C − 1 pairs to rank:
# none with one tag, and with two or three the prompts only learn to tell those apart.
_FEW_TAGS = 3


@dataclass(frozen=True)
class TuneJob:
    """A tuning run on texts.

    Attributes:
        model, pretrained: arguments of `resolve_source`.
        tags: the tag list, or its file.
        texts: files of texts, read in this order.
        output: the prompts file; an old one is replaced in one step at the end. None writes none.
        captions: texts in memory, read before the files.
        from_names: add sentences made from the tags' names.
        background: whether common nouns compete with the tags; None for where there are few tags.
        settings: the method and its numbers.
        resume: continue from the checkpoint beside the output.
        restart: start again although there is one.
        cache: a folder for caption features, None to keep them in memory.
        cache_precision: "fp32" or "fp16".
        device: "cpu", "cuda", or "auto" for a GPU where torch finds one.
    """

    model: str
    pretrained: str | None
    tags: Path | TagSet
    texts: tuple[Path, ...]
    output: Path | None
    captions: tuple[str, ...] = ()
    from_names: bool = False
    background: bool | None = None
    settings: TuneSettings = field(default_factory=TuneSettings)
    resume: bool = False
    restart: bool = False
    cache: Path | None = None
    cache_precision: str = "fp32"
    device: str = "cpu"


def checkpoint_path(output: Path) -> Path:
    """The checkpoint file of a run with this output."""
    return output.with_name(f"{output.name}.checkpoint")


def run_job(job: TuneJob, progress: Progress) -> TunedPrompts:
    """Tune and save; the input is checked before the long work.

    Raises:
        InputError: the files, the model or the settings are invalid.
    """
    progress = progress if is_main_process() else SilentProgress()
    _check_files(job)
    source = resolve_source(job.model, job.pretrained, job.settings.seed)
    device = pick_device(job.device)
    tags = job.tags if isinstance(job.tags, TagSet) else TagSet.load(job.tags)
    nouns = _background(job, tags)
    texts = list(_labelled(job, tags, nouns, progress))
    clip = load(source).to(device)
    nouns, texts = _without_related(clip, tags, nouns, texts)
    if nouns:
        progress.note(f"{len(nouns)} common nouns compete as background tags")
    progress.note(
        f"{clip.name}, weights {clip.pretrained} ({clip.licence}), on {device}, "
        f"{torch.get_num_threads()} threads"
    )
    options = RunOptions(
        checkpoint=None if job.output is None else checkpoint_path(job.output),
        resume=job.resume,
        cache=job.cache,
        cache_precision=job.cache_precision,
        sources=_sources(job),
    )
    prompts = tune(clip, tags.tags, texts, job.settings, options, progress, nouns)
    if job.output is not None:
        save_prompts(prompts, job.output)
    return prompts


def save_prompts(prompts: TunedPrompts, output: Path) -> None:
    """Write a run's prompts and delete its checkpoint, in the main process alone."""
    if is_main_process():
        prompts.save(output)
        checkpoint_path(output).unlink(missing_ok=True)


def _check_files(job: TuneJob) -> None:
    if not (job.texts or job.captions or job.from_names):
        raise InputError(
            "no texts: give --texts FILE, or --from-names for sentences made from tags"
        )
    if job.output is not None:
        check_output(job.output, job.resume, job.restart)


def check_output(output: Path, resume: bool, restart: bool) -> None:
    """Check that a prompts file can be written and that no unfinished run is overwritten.

    Raises:
        InputError: it cannot be written, or --resume or --restart is missing or misplaced.
    """
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output}: there is no folder {output.parent}; create it first")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give a file name for the prompts")
    checkpoint = checkpoint_path(output)
    if resume and restart:
        raise InputError("--resume and --restart exclude each other: give one")
    if checkpoint.exists() and not (resume or restart):
        raise InputError(
            f"{checkpoint} holds an unfinished run: --resume continues it, --restart starts again"
        )
    if resume and not checkpoint.exists():
        raise InputError(f"{checkpoint}: no checkpoint to resume from; remove --resume")


def pick_device(name: str) -> torch.device:
    """The device for "cpu", "cuda" or "auto" (a GPU where torch finds one), one per process.

    Raises:
        InputError: "cuda" without a CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank()) if processes() > 1 else torch.device("cuda")


def _background(job: TuneJob, tags: TagSet) -> tuple[Tag, ...]:
    if job.background is False and len(tags) == 1:
        raise InputError(
            f"the tag {tags.names[0]!r} alone has nothing to be told apart from: leave "
            "--no-background away, or use templates (`taidpt bank make`)"
        )
    wanted = len(tags) <= _FEW_TAGS if job.background is None else job.background
    return background_tags(tags) if wanted else ()


def _labelled(
    job: TuneJob, tags: TagSet, nouns: tuple[Tag, ...], progress: Progress
) -> Iterator[LabelledText]:
    """The texts that name a tag or a noun; notes the number and the tags that none names."""
    competing = TagSet((*tags, *nouns), tags.source)
    if job.texts or job.captions:
        report = LabelReport(tags)
        labeler = TextLabeler(competing)
        for text in _all_texts(job):
            labels = labeler.labels(text)
            report.add(text, [index for index in labels if index < len(tags)])
            if labels:
                yield text, labels
        progress.note(next(report.lines()))
        if report.unnamed == report.texts and not job.from_names:
            raise InputError(
                f"none of the {report.texts:,} texts in {', '.join(_sources(job))} names a tag of "
                f"{tags.source}: check the spelling, add synonyms, or use --from-names"
            )
        if report.missing:
            progress.note(report.warning())
    if job.from_names:
        yield from texts_from_names(competing.names, seed=job.settings.seed)


def _without_related(
    clip: ClipModel, tags: TagSet, nouns: tuple[Tag, ...], texts: list[LabelledText]
) -> tuple[tuple[Tag, ...], list[LabelledText]]:
    """The nouns that the model tells from the tags, and the texts with labels of those alone."""
    kept = unrelated(clip, tags.tags, nouns)
    places = {len(tags) + old: len(tags) + new for new, old in enumerate(kept)}
    places |= {index: index for index in range(len(tags))}
    renumbered = [
        (text, tuple(places[index] for index in labels if index in places))
        for text, labels in texts
    ]
    return tuple(nouns[index] for index in kept), [pair for pair in renumbered if pair[1]]


def _all_texts(job: TuneJob) -> Iterator[str]:
    yield from job.captions
    for file in job.texts:
        yield from read_texts(file)


def _sources(job: TuneJob) -> tuple[str, ...]:
    memory = ("captions in memory",) if job.captions else ()
    generated = ("made from the tags' names",) if job.from_names else ()
    return (*memory, *(file.name for file in job.texts), *generated)

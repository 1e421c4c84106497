"""Refuse options that contradict each other, before the first frame is tagged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.address import local_path
from taidpt.runtime.sources.base import Source
from taidpt.runtime.sources.pictures import ImageSource
from taidpt.runtime.tag.request import TagJob
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.runtime.top_k import refuse_top

__all__ = ["check_bank_options", "check_one_video", "check_sources", "check_targets"]

_FILES = ("jsonl", "events", "csv", "vtt", "srt", "overlay", "report", "save_frames")
_NEED_EVENTS = ("events", "vtt", "srt", "report", "save_frames", "webhook", "mqtt")
_PAINTED = ("overlay", "save_frames")


def check_targets(
    targets: Mapping[str, str], heatmap: str | None, show_off: bool, tagger: Tagger
) -> None:
    """Check the outputs against each other.

    Args:
        targets: output name → file or address.
        heatmap: the tag whose heatmap is painted.
        show_off: whether tags that are off are painted.
    Raises:
        InputError: two outputs have the same target, or one needs another that is missing.
    """
    by_target: dict[str, str] = {}
    for name, target in targets.items():
        option = _option(name)
        if target == "-" and name not in ("jsonl", "events"):
            raise InputError(f"{option} needs a file; only --jsonl and --events write to -")
        if target in by_target:
            raise InputError(f"{by_target[target]} and {option} both go to {target}")
        by_target[target] = option
    if heatmap is not None:
        tagger.vocabulary.index(heatmap)
        _need_painted(targets, "--heatmap")
    if show_off:
        _need_painted(targets, "--show-off")


def check_sources(targets: Mapping[str, str], sources: Sequence[str], bundle: str) -> None:
    """Check the outputs against the inputs.

    Raises:
        InputError: an output would overwrite a source, or a file of the bundle.
    """
    inputs = {os.path.realpath(local_path(source)): source for source in sources if source != "-"}
    for name, target in targets.items():
        place, option = os.path.realpath(target), _option(name)
        if name in _FILES and place in inputs:
            raise InputError(
                f"{option} would overwrite the source {inputs[place]}; name another file"
            )
        if name == "save_frames" and any(str(Path(source).parent) == place for source in inputs):
            raise InputError(f"--save-frames {target} holds a source; name another folder")
        if name in _FILES and Path(place).is_relative_to(os.path.realpath(bundle)):
            raise InputError(f"{option} would write into the bundle {bundle}; name another file")


def check_one_video(targets: Mapping[str, str], sources: Sequence[Source]) -> None:
    """Check that subtitles are of one source; a folder may hold several videos.

    Raises:
        InputError: there are several sources.
    """
    for name in ("vtt", "srt"):
        if name in targets and len(sources) > 1:
            raise InputError(f"--{name} is for one video; give one source")


def check_bank_options(job: TagJob, sources: Sequence[Source], tagger: Tagger) -> None:
    """Check the bank's options, and outputs that an export with --top-k cannot give.

    Raises:
        InputError: names the option and its replacement.
    """
    if job.watch_bank and job.bank is None:
        raise InputError("--watch-bank needs a file to watch: add --bank FILE")
    if job.watch_bank and job.outputs.csv is not None:
        raise InputError(
            "--csv has one column per tag, so it cannot be used with --watch-bank; use --jsonl"
        )
    need_events = [_option(name) for name in _NEED_EVENTS if getattr(job.outputs, name) is not None]
    if job.state is not None:
        need_events.append("--state")
    if not (job.outputs.targets or all(isinstance(source, ImageSource) for source in sources)):
        need_events.append("of a video; take --jsonl FILE or --csv FILE")
    if need_events:
        top_k = tagger.bundle.manifest.graph.top_k
        refuse_top(top_k, job.bundle, f"a timeline ({need_events[0]})")


def _need_painted(targets: Mapping[str, str], option: str) -> None:
    if not any(name in targets for name in _PAINTED):
        raise InputError(
            f"{option} needs frames to paint on: add --overlay FILE or --save-frames FOLDER"
        )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"

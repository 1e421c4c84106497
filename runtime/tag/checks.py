"""What does not go together in one `taidpt tag`, said before the first frame."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import Source
from taidpt.runtime.sources.pictures import ImageSource
from taidpt.runtime.tag.request import TagJob
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.runtime.top_k import refuse_top

__all__ = ["check_bank_options", "check_sources", "check_targets"]

_FILES = ("jsonl", "events", "csv", "vtt", "srt", "overlay", "report")
_NEED_EVENTS = ("events", "vtt", "srt", "report", "webhook", "mqtt")


def check_targets(targets: Mapping[str, str], heatmap: str | None, tagger: Tagger) -> None:
    """Outputs against each other.

    Args:
        targets: by output, where it goes.
        heatmap: the tag whose heatmap is to be painted.
    Raises:
        InputError: two go to one place, or one needs another.
    """
    by_target: dict[str, str] = {}
    for name, target in targets.items():
        if target == "-" and name not in ("jsonl", "events"):
            raise InputError(f"--{name} needs a file; only --jsonl and --events write to -")
        if target in by_target:
            raise InputError(f"--{by_target[target]} and --{name} both go to {target}")
        by_target[target] = name
    if heatmap is not None:
        tagger.vocabulary.index(heatmap)
        if "overlay" not in targets:
            raise InputError("--heatmap is painted on a video; name it with --overlay FILE")


def check_sources(targets: Mapping[str, str], sources: Sequence[str], bundle: str) -> None:
    """Outputs against what is read.

    Raises:
        InputError: one would be written over a source or into the bundle, or holds one video.
    """
    read = {os.path.realpath(source): source for source in sources}
    for name, target in targets.items():
        place = os.path.realpath(target)
        if name in _FILES and place in read:
            raise InputError(
                f"--{name} would overwrite the source {read[place]}; name another file"
            )
        if name in _FILES and Path(place).is_relative_to(os.path.realpath(bundle)):
            raise InputError(f"--{name} would write into the bundle {bundle}; name another file")
        if name in ("vtt", "srt") and len(sources) > 1:
            raise InputError(f"--{name} is for one video; give one source")


def check_bank_options(job: TagJob, sources: Sequence[Source], tagger: Tagger) -> None:
    """A bank that changes, or an export of the best scores alone, against what is asked for.

    Raises:
        InputError: naming the option and what to use in its place.
    """
    if job.watch_bank and job.bank is None:
        raise InputError("--watch-bank watches the file of --bank; name it with --bank FILE")
    if job.watch_bank and job.outputs.csv is not None:
        raise InputError("--csv has a column a tag, so tags cannot change under it; use --jsonl")
    wanted = [f"--{name}" for name in _NEED_EVENTS if getattr(job.outputs, name) is not None]
    if job.state is not None:
        wanted.append("--state")
    if not (job.outputs.targets or all(isinstance(source, ImageSource) for source in sources)):
        wanted.append("of a video; take --jsonl FILE or --csv FILE")
    if wanted:
        refuse_top(tagger.bundle.manifest.graph.top_k, job.bundle, f"a timeline ({wanted[0]})")

"""Frames of several sources in groups, for jobs that read a scene once."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import LOG, error_to_raise

if TYPE_CHECKING:
    from taidpt.runtime.sources.base import Frame, Source

__all__ = ["open_sources", "read_frames"]

_BATCH = 8
T = TypeVar("T")


def open_sources(
    stack: contextlib.ExitStack, bundle: Bundle, sources: Sequence[str], every: int = 1
) -> list[Source]:
    """Folders and videos for a bundle's graph; `stack` closes them."""
    from taidpt.runtime.sources.base import SourceOptions
    from taidpt.runtime.sources.open import list_sources

    colours = bundle.manifest.input.source_colours
    found = list_sources(sources, SourceOptions(recursive=True, every=every, colours=colours))
    return [stack.enter_context(source) for source in found]


def read_frames(
    sources: list[Source], most: int, read: Callable[[list[Frame]], T], title: str = "scoring"
) -> tuple[list[T], InputError | None]:
    """What `read` makes of groups of frames, `most` frames in all, with a bar on a terminal.

    Returns:
        One result a group, and the error of a source that ended early, to be raised after they are
        used.
    Raises:
        InputError: no frame came.
    """
    problems: list[InputError] = []
    parts = []
    with _frame_bar(sources, most, title) as bar:
        wanted = itertools.islice(_all_frames(sources, problems), most)
        while group := list(itertools.islice(wanted, _BATCH)):
            parts.append(read(group))
            bar.update(len(group))
    problem = error_to_raise(problems, used=bool(parts))
    if not parts:
        raise problem or InputError("no frame came; give pictures, a folder or a video")
    return parts, problem


def _all_frames(sources: list[Source], problems: list[InputError]) -> Iterator[Frame]:
    """Frames of one source after the other, each open for its turn alone."""
    for source in sources:
        try:
            yield from source
        except InputError as error:
            problems.append(error)
            if len(sources) > 1:
                LOG.warning("ended: %s", error)


def _frame_bar(sources: list[Source], most: int, title: str) -> Any:
    from tqdm import tqdm

    known = [source.total for source in sources if source.total is not None]
    total = min(most, sum(known)) if len(known) == len(sources) else None
    return tqdm(desc=title, total=total, unit="frame", leave=False, disable=None)

"""A scene's frames, scored: what calibration learns from."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.calibration.statistics.effective import effective_frames
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import LOG, error_to_raise
from taidpt.runtime.top_k import refuse_top

if TYPE_CHECKING:
    from taidpt.label_file import LabelFile
    from taidpt.runtime.sources.base import Frame, Source
    from taidpt.runtime.tagger.tagger import Tagger

__all__ = [
    "SceneScores",
    "frame_batches",
    "open_sources",
    "refuse_unknown_frames",
    "score_frames",
    "video_of",
    "worth",
]

Floats = npt.NDArray[np.float64]

_BATCH = 8
_NOISE = 1e-5  # of the largest score: what a graph in float32 gives for the same frame twice


@dataclass(frozen=True, eq=False)
class SceneScores:
    """Scores of a scene's frames, [N, C], and what each frame is called.

    Attributes:
        effective_frames: how many independent ones they are worth.
        problem: the error of a source that ended early, to be raised after these are used.
    """

    scores: Floats
    frames: tuple[str, ...]
    effective_frames: float
    problem: InputError | None = None


def open_sources(
    stack: contextlib.ExitStack, bundle: Bundle, sources: Sequence[str], every: int = 1
) -> list[Source]:
    """Folders and videos for a bundle's graph; `stack` closes them."""
    from taidpt.runtime.sources.base import SourceOptions
    from taidpt.runtime.sources.open import list_sources

    colours = bundle.manifest.input.source_colours
    found = list_sources(sources, SourceOptions(recursive=True, every=every, colours=colours))
    return [stack.enter_context(source) for source in found]


def score_frames(
    tagger: Tagger, sources: list[Source], most: int, use: str = "calibration"
) -> SceneScores:
    """Score frames until there are `most`; a tag whose scores move by rounding alone stays still.

    Args:
        sources: pictures are called by their file's name, other frames by number.
        use: what the scores are for, as errors call it.
    Raises:
        InputError: no frame came, or the export returns each frame's best scores alone.
    """
    refuse_top(tagger.bundle.manifest.graph.top_k, tagger.bundle.path, use)
    rows: list[npt.NDArray[np.float32]] = []
    frames: list[str] = []
    videos: list[str] = []
    problems: list[InputError] = []
    for group in frame_batches(sources, most, problems):
        rows.append(tagger.tag_batch([frame.image for frame in group]).scores.copy())
        frames += [_name(frame) for frame in group]
        videos += [video_of(frame) for frame in group]
    if not rows:
        nothing = InputError("no frame came; give pictures, a folder or a video")
        raise next(iter(problems), nothing)
    problem = error_to_raise(problems, used=True)
    scores = _stilled(np.concatenate(rows).astype(np.float64))
    return SceneScores(scores, tuple(frames), worth(scores, videos), problem)


def _stilled(scores: Floats) -> Floats:
    still = np.ptp(scores, axis=0) < _NOISE * np.abs(scores).max()
    return np.where(still, np.median(scores, axis=0), scores)


def refuse_unknown_frames(labels: LabelFile, sources: list[Source], every: int, most: int) -> None:
    """Raise InputError where labels are of frames that will not come, as far as that is known."""
    from taidpt.runtime.sources.pictures import ImageSource

    pictures = [source for source in sources if isinstance(source, ImageSource)]
    if len(pictures) == len(sources):
        labels.of([path.name for source in pictures for path in source.wanted][:most])
    elif not pictures:
        labels.refuse_numbers(every, most)


def video_of(frame: Frame) -> str:
    """The video that a frame is of; "" where it is a picture."""
    return "" if frame.time_s is None else frame.source


def worth(scores: Floats, videos: Sequence[str]) -> float:
    """How many independent frames these are: pictures count one each, each video by itself.

    Args:
        scores: [N, C]. videos: N, as `video_of` gives them.
    """
    of = np.array(videos)
    pictures = float((of == "").sum())
    return pictures + sum(effective_frames(scores[of == one]) for one in set(videos) - {""})


def frame_batches(
    sources: list[Source], most: int, problems: list[InputError]
) -> Iterator[list[Frame]]:
    """Frames of all sources in groups, `most` in all, with a bar on a terminal.

    The error of a source that ended early is added to `problems`; its frames are used.
    """
    with _frame_bar(sources, most) as bar:
        wanted = itertools.islice(_all_frames(sources, problems), most)
        while group := list(itertools.islice(wanted, _BATCH)):
            yield group
            bar.update(len(group))


def _all_frames(sources: list[Source], problems: list[InputError]) -> Iterator[Frame]:
    """Frames of one source after the other, each open for its turn alone."""
    for source in sources:
        try:
            yield from source
        except InputError as error:
            problems.append(error)
            if len(sources) > 1:
                LOG.warning("ended: %s", error)


def _frame_bar(sources: list[Source], most: int) -> Any:
    from tqdm import tqdm

    known = [source.total for source in sources if source.total is not None]
    total = min(most, sum(known)) if len(known) == len(sources) else None
    return tqdm(desc="scoring", total=total, unit="frame", leave=False, disable=None)


def _name(frame: Frame) -> str:
    return str(frame.index) if frame.time_s is not None else Path(frame.source).name

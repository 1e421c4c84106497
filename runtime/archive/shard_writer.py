"""Writes the parts of one shard from what workers give."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from taidpt.runtime.archive.clip_tagger import ClipEnd, Crops, TaggedRows
from taidpt.runtime.archive.folder import ArchiveFolder, PartWriter
from taidpt.runtime.archive.inputs import Clip, Shard
from taidpt.runtime.archive.request import ArchiveJob
from taidpt.runtime.archive.rows import ClipEvents, RowMaker
from taidpt.runtime.archive.worker import ClipWorker
from taidpt.runtime.errors import InputError, TaidptError

__all__ = ["Count", "Piece", "ShardWriter", "core_count", "share_of_cores", "tag_shard"]


@dataclass(frozen=True)
class Count:
    """What was tagged.

    Attributes:
        clips, failed, frames: numbers of clips, of clips with an error, and of frames.
        first_error: the first error, or None.
    """

    clips: int = 0
    failed: int = 0
    frames: int = 0
    first_error: str | None = None

    def __add__(self, other: Count) -> Count:
        return Count(
            self.clips + other.clips,
            self.failed + other.failed,
            self.frames + other.frames,
            self.first_error or other.first_error,
        )


def tag_shard(archive: ArchiveFolder, shard: Shard, rows: RowMaker, worker: ClipWorker) -> Count:
    """Tag the clips of a shard and write its parts; after an exception there are none.

    Raises:
        TaidptError: the disk is full, or the worker cannot tag at all.
    """
    done = Count()
    with PartWriter(archive, shard.name, rows.schemas) as writer:
        for clip in shard.clips:
            for message in worker.work(clip):
                if isinstance(message, ClipEnd):
                    done += _end_clip(writer, clip, message, rows)
                elif len(message):
                    writer.write("frames", message)
    return done


@dataclass(frozen=True, eq=False)
class Piece:
    """Consecutive frames of a clip, or its end, on their way through separate stages.

    Attributes:
        shard: name of the shard.
        clip: number of the clip in the shard.
        first: number of frames of the clip before this piece.
        content: `Crops`, `TaggedRows` or `ClipEnd`; or the error that ends the run.
    """

    shard: str
    clip: int
    first: int
    content: Crops | TaggedRows | ClipEnd | TaidptError


class ShardWriter:
    """Writes the parts of a shard from pieces that arrive in any order, and more than once.

    Pieces of a second try are used where they continue what is there.
    """

    def __init__(
        self, archive: ArchiveFolder, shard: Shard, rows: RowMaker, events: Callable[[], ClipEvents]
    ) -> None:
        """Create the temporaries.

        Args:
            events: called for each clip.
        Raises:
            InputError: the folder cannot be written.
        """
        self._parts = PartWriter(archive, shard.name, rows.schemas)
        self._clips, self._rows, self._new_events = shard.clips, rows, events
        self._next = 0, 0  # clip, and number of its frames so far
        self._early: dict[tuple[int, int], Any] = {}
        self._events = events()
        self.done = Count()

    def add(self, piece: Piece) -> bool:
        """Take a piece; whether the shard is whole now, and its parts are there.

        Raises:
            InputError: the disk is full.
        """
        if (piece.clip, piece.first) >= self._next:
            self._early.setdefault((piece.clip, piece.first), piece.content)
        while self._next in self._early:
            self._take(self._early.pop(self._next))
        whole = self._next[0] == len(self._clips)
        if whole:
            self._parts.close()
        return whole

    def abandon(self) -> None:
        """Remove the temporaries of a shard that did not become whole."""
        with contextlib.suppress(InputError), self._parts:
            raise InputError("abandoned")

    def _take(self, content: TaggedRows | ClipEnd) -> None:
        number, frames = self._next
        if isinstance(content, TaggedRows):
            self._parts.write("frames", content.rows)
            self._events.add(content.times_s, content.scores)
            self._next = number, frames + len(content)
            return
        clip = self._clips[number]
        if content.events is not None:
            found = self._events.batch(clip.name)
            content = dataclasses.replace(content, events=found, end_s=self._events.end_s)
        self.done += _end_clip(self._parts, clip, content, self._rows)
        self._next, self._events = (number + 1, 0), self._new_events()


def _end_clip(writer: PartWriter, clip: Clip, end: ClipEnd, rows: RowMaker) -> Count:
    if end.events is not None:
        writer.write("events", end.events)
    if end.error is not None:
        writer.write("errors", rows.error(clip.name, end.error, end.frames))
    writer.write("manifest", rows.manifest(clip, end.frames, end.end_s))
    return Count(1, int(end.error is not None), end.frames, end.error)


def share_of_cores(job: ArchiveJob, workers: int) -> ArchiveJob:
    """The job of one of some workers: each gets its share of the cores."""
    threads = job.tag.backend.threads or max(core_count() // workers, 1)
    backend = dataclasses.replace(job.tag.backend, threads=threads)
    return dataclasses.replace(job, tag=dataclasses.replace(job.tag, backend=backend))


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))

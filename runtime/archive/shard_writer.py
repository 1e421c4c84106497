"""Writes the parts of one shard from what a worker gives."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from taidpt.runtime.archive.clip_tagger import ClipEnd
from taidpt.runtime.archive.folder import ArchiveFolder, PartWriter
from taidpt.runtime.archive.inputs import Clip, Shard
from taidpt.runtime.archive.request import ArchiveJob
from taidpt.runtime.archive.rows import RowMaker
from taidpt.runtime.archive.worker import ClipWorker

__all__ = ["Count", "core_count", "share_of_cores", "tag_shard"]


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
            for message in worker.tag(clip):
                if isinstance(message, ClipEnd):
                    done += _end_clip(writer, clip, message, rows)
                elif message.num_rows:
                    writer.write("frames", message)
    return done


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

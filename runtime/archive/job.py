"""Run `taidpt archive`: shards to worker processes, rows to parts."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

from taidpt.runtime.archive.clip_tagger import ClipEnd
from taidpt.runtime.archive.folder import ArchiveFolder, PartWriter
from taidpt.runtime.archive.inputs import Clip, Shard, find_clips, make_shards
from taidpt.runtime.archive.request import ArchiveJob, identity_of, layout_of
from taidpt.runtime.archive.rows import RowMaker
from taidpt.runtime.archive.worker import ClipWorker
from taidpt.runtime.backends.gpu import gpu_count
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from taidpt.runtime.printable import printable
from taidpt.runtime.tag.terminal import log_to_stderr

__all__ = ["Count", "run_archive", "tag_shard"]

T = TypeVar("T")

# Python loses a signal that arrives just before a lock is waited for, until the wait ends.
_LOOK_S = 0.5


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


def run_archive(job: ArchiveJob) -> None:
    """Tag every clip that the archive does not hold yet, and print what was done.

    Raises:
        InputError: an input cannot be used, another run holds the folder, it holds rows of another
            bundle, the disk is full, or no clip could be read.
        TaidptError: the bundle cannot be used here. Shards that are whole stay.
    """
    bundle = Bundle.load(job.tag.bundle)
    identity = identity_of(job, bundle)
    rows = RowMaker(layout_of(job.features, bundle.manifest), job.tag.outputs.top)
    with log_to_stderr(logging.DEBUG if job.tag.verbose else logging.INFO):
        found = find_clips(job.tag.sources)
        with ArchiveFolder.writing(job.output, identity, bundle.manifest) as archive:
            clips = _clips_to_tag(archive, found, job.retry_errors)
            shards = list(make_shards(clips, identity, job.shard_clips))
            done = _tag_shards(job, archive, shards, rows)
    _report(job, len(found) - len(clips), done)


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
                else:
                    writer.write("frames", message)
    return done


def _end_clip(writer: PartWriter, clip: Clip, end: ClipEnd, rows: RowMaker) -> Count:
    if end.events is not None:
        writer.write("events", end.events)
    if end.error is not None:
        writer.write("errors", rows.error(clip.name, end.error, end.frames))
    writer.write("manifest", rows.manifest(clip, end.frames, end.end_s))
    return Count(1, int(end.error is not None), end.frames, end.error)


def _clips_to_tag(archive: ArchiveFolder, found: list[Clip], retry_errors: bool) -> list[Clip]:
    """The clips that the archive does not hold as they are now; older rows of them are removed."""
    held = archive.clips()
    states = {clip.name: (clip.size, clip.modified_ns) for clip in found}
    stale = {name for name, state in states.items() if name in held and held[name] != state}
    if retry_errors:
        stale |= archive.failed() & set(states)
    if stale:
        archive.drop(stale)
    return [clip for clip in found if clip.name in stale or clip.name not in held]


def _tag_shards(
    job: ArchiveJob, archive: ArchiveFolder, shards: Sequence[Shard], rows: RowMaker
) -> Count:
    """Tag all shards with as many workers as fit; the first error ends them all."""
    from tqdm import tqdm

    devices = _worker_environments(job)
    workers = [ClipWorker(_one_of(job, len(devices)), device) for device in devices[: len(shards)]]
    done = Count()
    total = sum(len(shard.clips) for shard in shards)
    with (
        tqdm(desc="tagging", total=total, unit="clip", leave=False, disable=None) as bar,
        contextlib.ExitStack() as stack,
    ):
        idle: queue.SimpleQueue[ClipWorker] = queue.SimpleQueue()
        pool = stack.enter_context(ThreadPoolExecutor(max(len(workers), 1)))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        for worker in workers:
            idle.put(worker)
            stack.callback(worker.close)  # ends the wait of its thread

        def tag_one(shard: Shard) -> Count:
            worker = idle.get()
            try:
                return tag_shard(archive, shard, rows, worker)
            finally:
                idle.put(worker)

        for counted in _results(pool, tag_one, shards):
            done += counted
            bar.update(counted.clips)
    return done


def _results(
    pool: ThreadPoolExecutor, work: Callable[[Shard], T], shards: Sequence[Shard]
) -> Iterator[T]:
    """Results as they are ready; the first exception is raised."""
    waiting = {pool.submit(work, shard) for shard in shards}
    while waiting:
        ready, waiting = wait(waiting, _LOOK_S, return_when=FIRST_COMPLETED)
        for future in ready:
            yield future.result()


def _one_of(job: ArchiveJob, workers: int) -> ArchiveJob:
    """The job of one worker: each gets its share of the cores."""
    threads = job.tag.backend.threads or max(_cores() // workers, 1)
    backend = dataclasses.replace(job.tag.backend, threads=threads)
    return dataclasses.replace(job, tag=dataclasses.replace(job.tag, backend=backend))


def _worker_environments(job: ArchiveJob) -> list[Mapping[str, str]]:
    """Variables of each worker: one a core on a CPU, one a GPU otherwise."""
    gpus = [] if job.tag.backend.device == "cpu" else _gpus()
    count = job.workers or len(gpus) or _cores()
    if not gpus:
        return [{}] * count
    return [{"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(count)]


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = gpu_count()
    return [str(index) for index in range(count)] if visible is None else visible.split(",")[:count]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _report(job: ArchiveJob, held: int, done: Count) -> None:
    """Print what was done.

    Raises:
        InputError: the archive is new, and none of its clips could be read.
    """
    if done.clips and done.failed == done.clips and not done.frames and not held:
        raise InputError(f"none of {done.clips} clips could be read; the first: {done.first_error}")
    failed = f", {done.failed} of them with errors" if done.failed else ""
    before = f", {held} were there" if held else ""
    print(f"{printable(job.output)}: {done.clips} clips, {done.frames} frames{failed}{before}")
    if done.failed:
        print(f"the first error: {printable(done.first_error or '')}")

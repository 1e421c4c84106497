"""Run `taidpt archive`: shards to worker processes, rows to parts."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

from taidpt.runtime.archive.folder import ArchiveFolder
from taidpt.runtime.archive.inputs import Clip, Shard, find_clips, make_shards
from taidpt.runtime.archive.request import ArchiveJob, identity_of, layout_of
from taidpt.runtime.archive.rows import RowMaker
from taidpt.runtime.archive.shard_writer import Count, core_count, share_of_cores, tag_shard
from taidpt.runtime.archive.worker import ClipWorker
from taidpt.runtime.backends.gpu import gpu_count
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from taidpt.runtime.printable import printable
from taidpt.runtime.tag.terminal import log_to_stderr

__all__ = ["plan", "run_archive", "shard_results"]

T = TypeVar("T")

# Python loses a signal that arrives just before a lock is waited for, until the wait ends.
_LOOK_S = 0.5


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
            if job.retry_errors:
                archive.drop(archive.failed() & {clip.name for clip in found})
            shards = plan(archive, found, identity, job.shard_clips)
            done = _tag_shards(job, archive, shards, rows)
    _report(job, len(found) - sum(len(shard.clips) for shard in shards), done)


def plan(
    archive: ArchiveFolder, found: Sequence[Clip], identity: Mapping[str, Any], most_clips: int
) -> list[Shard]:
    """Shards of the clips that the archive does not hold as they are now; drop older rows of them.

    A shard's name says what it holds, so that only parts of other names are read: those that were
    made of other groups of clips.

    Args:
        found: sorted.
    """
    whole = archive.whole()
    named = whole - archive.cut()
    known, left = set[str](), list[Clip]()
    for shard in make_shards(found, identity, most_clips):
        if shard.name in named:
            known.add(shard.name)
        else:
            left += shard.clips
    held = archive.clips(whole - known)
    new = [clip for clip in left if held.get(clip.name) != (clip.size, clip.modified_ns)]
    archive.drop({clip.name for clip in new} & set(held))
    return list(make_shards(new, identity, most_clips))


def _tag_shards(
    job: ArchiveJob, archive: ArchiveFolder, shards: Sequence[Shard], rows: RowMaker
) -> Count:
    """Tag all shards; the first error ends all workers."""
    from tqdm import tqdm

    if job.ray is not None and shards:
        from taidpt.runtime.archive.ray_tagger import tag_on_ray

        counts = tag_on_ray(job, archive, shards, job.ray)
    else:
        counts = _tag_here(job, archive, shards, rows)
    done = Count()
    total = sum(len(shard.clips) for shard in shards)
    with (
        contextlib.closing(counts),
        tqdm(desc="tagging", total=total, unit="clip", leave=False, disable=None) as bar,
    ):
        for counted in counts:
            done += counted
            bar.update(counted.clips)
    return done


def _tag_here(
    job: ArchiveJob, archive: ArchiveFolder, shards: Sequence[Shard], rows: RowMaker
) -> Generator[Count, None, None]:
    """Tag shards with as many workers as fit; yield a count for each that is whole."""
    devices = _worker_environments(job)
    share = share_of_cores(job, len(devices))
    workers = [ClipWorker(share, device) for device in devices[: len(shards)]]
    idle: queue.SimpleQueue[ClipWorker] = queue.SimpleQueue()

    def tag_one(shard: Shard) -> Count:
        worker = idle.get()
        try:
            return tag_shard(archive, shard, rows, worker)
        finally:
            idle.put(worker)

    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(max(len(workers), 1)))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        for worker in workers:
            idle.put(worker)
            stack.callback(worker.close)  # ends the wait of its thread
        yield from shard_results(pool, tag_one, shards, 2 * len(workers))


def shard_results(
    pool: Executor, work: Callable[[Shard], T], shards: Iterable[Shard], most: int
) -> Iterator[T]:
    """Results as they are ready, at most `most` shards at a time; the first exception is raised."""
    ready: queue.SimpleQueue[Future[T]] = queue.SimpleQueue()
    left = iter(shards)

    def submit(count: int) -> int:
        batch = list(itertools.islice(left, count))
        for shard in batch:
            pool.submit(work, shard).add_done_callback(ready.put)
        return len(batch)

    running = submit(most)
    while running:
        try:
            future = ready.get(timeout=_LOOK_S)
        except queue.Empty:
            continue
        running += submit(1) - 1
        yield future.result()


def _worker_environments(job: ArchiveJob) -> list[Mapping[str, str]]:
    """Variables of each worker: one a core on a CPU, one a GPU otherwise."""
    gpus = [] if job.tag.backend.device == "cpu" else _gpus()
    count = job.workers or len(gpus) or core_count()
    if not gpus:
        return [{}] * count
    return [{"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(count)]


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = gpu_count()
    return [str(index) for index in range(count)] if visible is None else visible.split(",")[:count]


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

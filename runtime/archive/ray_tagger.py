"""Archives on a Ray cluster: the same shards and parts, with Ray Data as the executor.

Two stages: decoders on CPUs, and actors that run the graph. This process writes the parts, which
are the record of progress; Ray's own checkpoints are not used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import pickle
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from taidpt.runtime.archive.clip_tagger import (
    GROUP_BYTES,
    ClipDecoder,
    ClipEnd,
    Crops,
    CropTagger,
    TaggedRows,
)
from taidpt.runtime.archive.folder import ArchiveFolder
from taidpt.runtime.archive.inputs import Shard, clip_of
from taidpt.runtime.archive.request import ArchiveJob, layout_of
from taidpt.runtime.archive.rows import ClipEvents, RowMaker
from taidpt.runtime.archive.shard_writer import (
    Count,
    Piece,
    ShardWriter,
    core_count,
    share_of_cores,
)
from taidpt.runtime.archive.worker import ClipWorker
from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import BackendError, InputError, TaidptError
from taidpt.runtime.results import Vocabulary
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.stream.stream import StreamSettings
from taidpt.runtime.tag.request import TagJob
from taidpt.runtime.tagger.active_bank import fit_bank, own_bank

__all__ = ["RayTagger", "tag_on_ray"]

# Runs of shards of which a lost node took pieces with it.
_ROUNDS = 3
# Blocks of frames in Ray's store for each actor: one in hand, one that waits, two that are made.
_BLOCKS_AHEAD = 4
_COLUMN = "object"
_KEPT = "finished shards are kept: run the same command again to continue"
_PATIENCE_S = 5.0  # for the first connection to a cluster


class RayTagger:
    """Tags clips in a Ray Data pipeline: rows with a column `clip` in, rows of events out.

    clips = ray.data.from_items([{"clip": "gate.mp4"}, {"clip": "yard.mp4"}])
    events = clips.map_batches(
        RayTagger, fn_constructor_args=("street.taidpt",), batch_size=1, concurrency=2, num_cpus=1
    )

    A row has the columns of the table `events`; a clip that cannot be read is a row with `error`.
    Each actor has a process of its own, which a decoder may hang or crash.
    """

    def __init__(
        self,
        bundle: str,
        source: SourceOptions | None = None,
        stream: StreamSettings | None = None,
        device: str = "auto",
        deadline_s: float = 120.0,
    ) -> None:
        """Prepare; the bundle is loaded with the first clip.

        Args:
            bundle: its path on every node.
            source: which frames of a clip are used.
            stream: batch size, smoothing, shortest durations.
            device: as for `Tagger.load`; `num_gpus` of `map_batches` says which GPU it sees.
            deadline_s: longest time without a tagged frame.
        """
        tag = TagJob(
            bundle,
            (),
            backend=BackendOptions(device, threads=1),
            source=source or SourceOptions(),
            stream=stream or StreamSettings(),
        )
        self._worker = ClipWorker(ArchiveJob(tag, "", deadline_s=deadline_s))
        layout = layout_of("none", Bundle.load(bundle).manifest)
        self._schema = RowMaker(layout, 1).schemas["events"]

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """Tag the clips of a batch.

        Raises:
            TaidptError: the bundle cannot be used here.
        """
        clips = np.asarray(batch["clip"]).tolist()
        tables = [self._tag(str(path)) for path in clips]
        return pa.concat_tables(tables, promote_options="default")

    def _tag(self, path: str) -> Any:
        clip = clip_of(path)
        end = next(m for m in self._worker.work(clip) if isinstance(m, ClipEnd))
        events = [] if end.events is None else [end.events]
        table = pa.Table.from_batches(events, self._schema).replace_schema_metadata()
        table = table.append_column("error", pa.nulls(table.num_rows, pa.string()))
        if end.error is None:
            return table
        row = pa.table({"clip": [clip.name], "error": [end.error]})
        return pa.concat_tables([table, row], promote_options="permissive")


class _Decoder:
    """The first stage, an actor on CPUs: shards to pieces with preprocessed frames."""

    def __init__(self, job: ArchiveJob) -> None:
        self._worker = ClipWorker(job, kind=ClipDecoder)

    def __call__(self, batch: Any) -> Iterator[Any]:
        for shard in _objects(batch):
            yield from map(_batch, self._pieces(shard))

    def _pieces(self, shard: Shard) -> Iterator[Piece]:
        try:
            for number, clip in enumerate(shard.clips):
                frames = 0
                for message in self._worker.work(clip):
                    if len(message) or isinstance(message, ClipEnd):
                        yield Piece(shard.name, number, frames, message)
                    frames += len(message)
        except TaidptError as error:
            yield Piece(shard.name, 0, 0, error)


class _Inference:
    """The second stage, an actor with a GPU or a core: preprocessed frames to rows."""

    def __init__(self, job: ArchiveJob) -> None:
        self._worker = ClipWorker(job, kind=CropTagger)

    def __call__(self, batch: Any) -> Iterator[Any]:
        for piece in _objects(batch):
            content = self._tagged(piece)
            yield _batch(dataclasses.replace(piece, content=content))

    def _tagged(self, piece: Piece) -> Any:
        if not isinstance(piece.content, Crops):
            return piece.content
        try:
            messages = list(self._worker.work(piece.content))
        except TaidptError as error:
            return error
        tagged = [message for message in messages if isinstance(message, TaggedRows)]
        # without them the process has ended, and so does the clip, with an error
        return tagged[0] if tagged else dataclasses.replace(messages[-1], frames=piece.first)


def _batch(value: Any) -> Any:
    """A batch of Ray Data with one row, a pickled object."""
    return pa.table({_COLUMN: pa.array([pickle.dumps(value)], pa.large_binary())})


def _objects(batch: Any) -> Iterator[Any]:
    """The objects in a batch of Ray Data."""
    return (pickle.loads(cell.as_buffer()) for cell in batch.column(_COLUMN))


def tag_on_ray(
    job: ArchiveJob, archive: ArchiveFolder, shards: Sequence[Shard], address: str
) -> Generator[Count, None, None]:
    """Tag shards on a Ray cluster; yield a `Count` for each that is whole.

    Args:
        job: the paths of its bundle, its bank and the clips must mean the same on every node.
        address: "auto", the address of a cluster, or "local", which starts one here.
    Raises:
        InputError: there is no such cluster.
        TaidptError: a shard cannot be written, or an actor cannot decode or tag at all.
    """
    import ray

    started = _connect(address)
    try:
        yield from _run(job, archive, shards)
    finally:
        if started:
            ray.shutdown()


def _connect(address: str) -> bool:
    """Connect to a cluster unless this process is connected; whether it was done here."""
    import ray

    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == "local":
        options["include_dashboard"] = False
    try:
        _look_for(address)
        ray.init(address, **options)
    except Exception as error:  # Ray raises just that where a node does not start
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--ray {address}: no Ray cluster answers ({reason}); start one with `ray start "
            "--head`, or give --ray local"
        ) from None
    return True


def _look_for(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.rpartition("/")[2], int(port)), _PATIENCE_S).close()


def _run(
    job: ArchiveJob, archive: ArchiveFolder, shards: Sequence[Shard]
) -> Generator[Count, None, None]:
    """Tag shards, and again those of which a node took pieces with it."""
    import ray

    left = {shard.name: shard for shard in shards}
    for _ in range(_ROUNDS):
        with contextlib.closing(_Collector(job, archive, left)) as collector:
            try:
                pieces = _pipeline(job, list(left.values()))
                for batch in pieces.iter_batches(batch_size=None, batch_format="pyarrow"):
                    for piece in _objects(batch):
                        yield from collector.add(piece)
            except ray.exceptions.RayError as error:
                line = str(error).strip().splitlines()[0]
                raise BackendError(f"Ray ended: {line}; {_KEPT}") from None
        if not left:
            return
    raise BackendError(f"Ray lost frames of {len(left)} shards {_ROUNDS} times; {_KEPT}")


def _pipeline(job: ArchiveJob, shards: Sequence[Shard]) -> Any:
    """A data set of tagged pieces, in any order."""
    import ray
    from ray.data import ActorPoolStrategy, ExecutionResources

    gpus = int(ray.cluster_resources().get("GPU", 0)) if job.tag.backend.device != "cpu" else 0
    # one core is left to Ray's own tasks, or nothing would start on a machine of one or two
    cores = max(int(ray.cluster_resources().get("CPU", 1)) - 1, 1)
    workers = job.workers or gpus or cores
    decoders = min(cores if gpus else workers, len(shards))
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # our bar says what is done
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False  # or one slow shard would hold all others
    context.target_max_block_size = 1  # a block for each piece
    most = _BLOCKS_AHEAD * GROUP_BYTES * (decoders + workers)
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        object_store_memory=most
    )
    # Without GPUs a core has an actor of each stage: one of them waits for the other.
    half = {"num_cpus": 0.5}
    decoding = {"num_cpus": 1} if gpus else half
    inference = {"num_cpus": 0, "num_gpus": 1} if gpus else half
    job = _absolute(job if gpus else share_of_cores(job, core_count()))
    options = {"fn_constructor_args": (job,), "batch_size": 1, "batch_format": "pyarrow"}
    rows = [{_COLUMN: pickle.dumps(shard)} for shard in shards]
    pieces = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Decoder,
        compute=ActorPoolStrategy(size=decoders, max_tasks_in_flight_per_actor=1),
        **decoding,
        **options,
    )
    return pieces.map_batches(
        _Inference, compute=ActorPoolStrategy(size=workers), **inference, **options
    )


class _Collector:
    """Collects the pieces of shards in hand, and writes each shard once it is whole."""

    def __init__(self, job: ArchiveJob, archive: ArchiveFolder, left: dict[str, Shard]) -> None:
        """Prepare; what is whole is removed from `left`."""
        bundle = Bundle.load(job.tag.bundle)
        self._archive, self._left = archive, left
        self._rows = RowMaker(layout_of(job.features, bundle.manifest), job.tag.outputs.top)
        vocabulary, settings = _vocabulary(job, bundle), job.tag.stream
        self._events = functools.partial(ClipEvents, self._rows, vocabulary, settings)
        self._writers: dict[str, ShardWriter] = {}

    def add(self, piece: Piece) -> Iterator[Count]:
        """Take a piece; yield the count of its shard if it is whole now."""
        if isinstance(piece.content, TaidptError):
            raise piece.content
        name = piece.shard
        if name not in self._left:  # written, and a lost node has repeated it
            return
        if name not in self._writers:
            shard = self._left[name]
            self._writers[name] = ShardWriter(self._archive, shard, self._rows, self._events)
        if self._writers[name].add(piece):
            del self._left[name]
            yield self._writers.pop(name).done

    def close(self) -> None:
        """Remove the temporaries of shards that are not whole."""
        for writer in self._writers.values():
            writer.abandon()


def _vocabulary(job: ArchiveJob, bundle: Bundle) -> Vocabulary:
    """The vocabulary that the graph's actors score with."""
    bank, threshold = job.tag.bank, job.tag.threshold
    active = own_bank(bundle) if bank is None else fit_bank(ClassBank.load(bank), bundle, bank)
    found = active.vocabulary
    return found if threshold is None else found.with_threshold(threshold, threshold)


def _absolute(job: ArchiveJob) -> ArchiveJob:
    """The job of an actor: with paths that do not depend on a process's folder."""
    bank = None if job.tag.bank is None else os.path.abspath(job.tag.bank)  # noqa: PTH100
    bundle = os.path.abspath(job.tag.bundle)  # noqa: PTH100
    tag = dataclasses.replace(job.tag, bundle=bundle, bank=bank, sources=())
    return dataclasses.replace(job, tag=tag)

"""Archives on a Ray cluster: the same shards, workers and parts, with Ray Data as the executor.

Ray's own checkpoints are not used: parts that are renamed into place are the record of progress.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from taidpt.runtime.archive.clip_tagger import ClipEnd
from taidpt.runtime.archive.folder import ArchiveFolder
from taidpt.runtime.archive.inputs import Shard, clip_of
from taidpt.runtime.archive.request import ArchiveJob, layout_of
from taidpt.runtime.archive.rows import RowMaker
from taidpt.runtime.archive.shard_writer import Count, share_of_cores, tag_shard
from taidpt.runtime.archive.worker import ClipWorker
from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError, TaidptError
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.stream.stream import StreamSettings
from taidpt.runtime.tag.request import TagJob

__all__ = ["RayTagger", "tag_on_ray"]

# Shards are handed out in blocks, each an object in Ray's store. So many that the last ones do not
# leave workers idle, and no more: making one takes milliseconds.
_BLOCKS, _BLOCKS_A_WORKER = 1024, 8
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
        end = next(m for m in self._worker.tag(clip) if isinstance(m, ClipEnd))
        events = [] if end.events is None else [end.events]
        table = pa.Table.from_batches(events, self._schema).replace_schema_metadata()
        table = table.append_column("error", pa.nulls(table.num_rows, pa.string()))
        if end.error is None:
            return table
        row = pa.table({"clip": [clip.name], "error": [end.error]})
        return pa.concat_tables([table, row], promote_options="permissive")


class _ShardActor:
    """Tags shards into parts; an actor of `map_batches`."""

    def __init__(self, job: ArchiveJob, facts: Mapping[str, Any]) -> None:
        self._archive = ArchiveFolder(job.folder, facts)
        manifest = Bundle.load(job.tag.bundle).manifest
        self._rows = RowMaker(layout_of(job.features, manifest), job.tag.outputs.top)
        self._worker = ClipWorker(job)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Tag one shard; what was counted, or the error that ends the run."""
        (shard,) = batch["shard"]
        try:
            whole = self._archive.count(shard.name)  # by a try whose node was lost afterwards
            done: Count | TaidptError
            if whole is not None:
                done = Count(*whole)
            else:
                done = tag_shard(self._archive, shard, self._rows, self._worker)
        except TaidptError as error:
            done = error
        return {"done": np.array([done], object)}


def tag_on_ray(
    job: ArchiveJob, archive: ArchiveFolder, shards: Sequence[Shard], address: str
) -> Generator[Count, None, None]:
    """Tag shards on a Ray cluster; yield a `Count` for each that is whole.

    Args:
        job: its paths must mean the same on every node.
        address: "auto", the address of a cluster, or "local", which starts one here.
    Raises:
        InputError: there is no such cluster.
        TaidptError: a shard cannot be written, or a worker cannot tag at all.
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
    except (OSError, ValueError, RuntimeError) as error:
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
    import ray
    from ray.data import ActorPoolStrategy

    gpus = int(ray.cluster_resources().get("GPU", 0)) if job.tag.backend.device != "cpu" else 0
    cores = max(int(ray.cluster_resources().get("CPU", 1)), 1)
    # one core is left to Ray's own tasks, or nothing would start on a machine of one or two
    most = min(job.workers or gpus or max(cores - 1, 1), max(len(shards), 1))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    blocks = min(len(shards), max(_BLOCKS, _BLOCKS_A_WORKER * most))
    work = ray.data.from_items(
        [{"shard": shard} for shard in shards], override_num_blocks=blocks
    ).map_batches(
        _ShardActor,
        fn_constructor_args=(_absolute(share_of_cores(job, 1)), dict(archive.facts)),
        batch_size=1,
        batch_format="numpy",
        compute=ActorPoolStrategy(size=most),
        **({"num_gpus": 1} if gpus else {"num_cpus": 1}),
    )
    for row in work.iter_rows():
        if isinstance(row["done"], TaidptError):
            raise row["done"]
        assert isinstance(row["done"], Count)
        yield row["done"]


def _absolute(job: ArchiveJob) -> ArchiveJob:
    """The job with paths that do not depend on a process's folder."""
    bank = None if job.tag.bank is None else os.path.abspath(job.tag.bank)  # noqa: PTH100
    bundle = os.path.abspath(job.tag.bundle)  # noqa: PTH100
    tag = dataclasses.replace(job.tag, bundle=bundle, bank=bank, sources=())
    output = os.path.abspath(job.output)  # noqa: PTH100
    return dataclasses.replace(job, tag=tag, output=output)

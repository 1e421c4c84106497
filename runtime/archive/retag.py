"""Run `taidpt archive retag`: other tags from stored features, without decoding a video."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from taidpt.runtime.adapting.similarity import bank_scores
from taidpt.runtime.archive.features import decode_features
from taidpt.runtime.archive.folder import ArchiveFolder, PartWriter
from taidpt.runtime.archive.request import file_identity, layout_of
from taidpt.runtime.archive.rows import ClipEvents, FrameRows, RowMaker
from taidpt.runtime.archive.schema import FeatureLayout
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.runtime.errors import InputError
from taidpt.runtime.printable import printable
from taidpt.runtime.results import Vocabulary
from taidpt.runtime.stream.stream import StreamSettings
from taidpt.runtime.tag.terminal import log_to_stderr
from taidpt.runtime.tagger.active_bank import check_fit

__all__ = ["retag"]

_LOG = logging.getLogger("taidpt.runtime")
# Frames that are scored at once: of 196 patches of 512 numbers they take 25 MB. More are slower,
# because each batch is new memory.
_BATCH = 64
_STREAM = ("smoothing_s", "min_on_s", "min_off_s")


@dataclass(frozen=True, eq=False)
class _Scorer:
    """What scores of stored features depend on."""

    layout: FeatureLayout
    bank: ClassBank
    scoring: Scoring
    vocabulary: Vocabulary
    settings: StreamSettings

    def scores(self, batch: Any) -> npt.NDArray[np.float32]:
        """Scores of N stored frames, [N, C]."""
        features = decode_features(batch, self.layout)
        return bank_scores(features, self.bank, self.scoring).astype(np.float32)


def retag(archive: str, bank: str, output: str) -> None:
    """Score an archive's stored features with another bank; write and print the result.

    Shards that the output holds already are left alone, so a killed run can be continued.

    Raises:
        InputError: the archive holds no features, the bank is of another model, or the output
            cannot be written.
        BundleError: the archive's facts or the bank are damaged.
    """
    source = ArchiveFolder.load(archive)
    if Path(output).resolve() == source.path.resolve():
        raise InputError(f"{output}: is the archive itself; name another folder with -o")
    scorer = _open_scorer(source, bank)
    before = source.facts["identity"]
    identity = {
        **before,
        "bank": file_identity(bank),
        "options": {
            **before["options"],
            "threshold": None,  # of the bundle's tags
            "features": "none",
            "scores_of": scorer.layout.kind,
        },
    }
    none = dataclasses.replace(scorer.layout, kind="none")
    rows = RowMaker(none, before["options"].get("top"))
    with log_to_stderr(), ArchiveFolder.writing(output, identity, source.manifest) as target:
        if not scorer.layout.has_patches and source.manifest.scoring.merge_weight:
            _LOG.warning(
                "%s: holds global features alone, so scores are those of whole frames; the bank's "
                "thresholds are for scores that patches take part in: treat them as a first guess",
                archive,
            )
        frames = _retag_shards(source, target, scorer, rows)
    clips = len(target.clips())
    print(f"{printable(output)}: {clips} clips, {frames} frames scored")


def _open_scorer(source: ArchiveFolder, path: str) -> _Scorer:
    manifest, options = source.manifest, source.facts["identity"]["options"]
    layout = layout_of(options["features"], manifest)
    if layout.kind == "none":
        raise InputError(
            f"{source.path}: holds no features; tag it again with --features global or patches"
        )
    if manifest.provenance.get("background"):
        raise InputError(
            f"{source.path}: its bundle has background tags, whose rows no archive holds; tag the "
            "videos again with the bank"
        )
    bundle = Bundle(source.path, manifest, (0, 0, 0))
    bank = check_fit(ClassBank.load(path), bundle, path)
    if bank.value_embeddings is not None:
        raise InputError(f"{path}: has value embeddings (DualCoOp), which need the graph")
    vocabulary = Vocabulary(bank.names, bank.thresholds, bank.probabilities, manifest.model.grid)
    scoring = manifest.scoring
    if not layout.has_patches:
        scoring = dataclasses.replace(scoring, merge_weight=0.0)
    settings = StreamSettings(**{name: options[name] for name in _STREAM})
    return _Scorer(layout, bank, scoring, vocabulary, settings)


def _retag_shards(
    source: ArchiveFolder, target: ArchiveFolder, scorer: _Scorer, rows: RowMaker
) -> int:
    """Score the shards that the target does not hold as they are now; number of frames."""
    from tqdm import tqdm

    shards, frames = source.shards(), 0
    for shard in set(target.shards()) - set(shards):
        target.part("manifest", shard).unlink()  # of clips that have changed since
    for shard in tqdm(shards, desc="scoring", unit="shard", leave=False, disable=None):
        copied = {table: source.read_part(table, shard) for table in ("errors", "manifest")}
        if shard in target.shards() and target.read_part("manifest", shard) == copied["manifest"]:
            continue
        with PartWriter(target, shard, rows.schemas) as writer:
            for table, batch in _scored(source.part("frames", shard), scorer, rows):
                writer.write(table, batch)
                frames += batch.num_rows if table == "frames" else 0
            for table, content in copied.items():
                for batch in content.to_batches():
                    writer.write(table, batch)
    return frames


def _scored(part: Path, scorer: _Scorer, rows: RowMaker) -> Iterator[tuple[str, Any]]:
    """Table and record batch, from the frames of one shard, whose clips lie one after another."""
    columns = ["clip", "index", "time_s", *(field.name for field in scorer.layout.fields())]
    batches = pq.ParquetFile(part).iter_batches(_BATCH, columns=columns)
    pieces = itertools.chain.from_iterable(map(_by_clip, batches))
    for clip, group in itertools.groupby(pieces, key=operator.itemgetter(0)):
        events = ClipEvents(rows, scorer.vocabulary, scorer.settings)
        for _, piece in group:
            scores = scorer.scores(piece)
            times = piece.column("time_s").to_pylist()
            waiting = FrameRows(piece.column("index").to_pylist(), times, list(scores))
            yield "frames", rows.frames(clip, waiting, scorer.vocabulary)
            events.add(times, scores)
        yield "events", events.batch(clip)


def _by_clip(batch: Any) -> Iterator[tuple[str, Any]]:
    """Clip → the rows of a record batch that are of it."""
    names = batch.column("clip").to_pylist()
    start = 0
    for name, group in itertools.groupby(names):
        count = len(list(group))
        yield name, batch.slice(start, count)
        start += count

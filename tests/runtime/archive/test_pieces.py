"""Clips that are decoded and tagged in separate stages: in this process, without Ray."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from taidpt.runtime.archive import clip_tagger as clip_tagger_module, worker as worker_module
from taidpt.runtime.archive.clip_tagger import ClipDecoder, ClipEnd, Crops, CropTagger, TaggedRows
from taidpt.runtime.archive.folder import ArchiveFolder
from taidpt.runtime.archive.inputs import Shard, clip_of, find_clips, make_shards
from taidpt.runtime.archive.ray_tagger import _batch, _Inference, _objects
from taidpt.runtime.archive.request import ArchiveJob, identity_of, layout_of
from taidpt.runtime.archive.rows import ClipEvents, RowMaker
from taidpt.runtime.archive.shard_writer import Piece, ShardWriter
from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.stream.stream import StreamSettings
from taidpt.runtime.tag.request import Outputs, TagJob
from taidpt.runtime.tagger.active_bank import own_bank
from tests.runtime.archive.in_process import archive_here
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_frame, colour_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle; three videos, of which one is cut short, a picture and a file that is none."""
    folder = tmp_path_factory.mktemp("pieces")
    tiny_bundle(folder / "street.taidpt", TinySpec(thresholds=(1.0,)))
    (folder / "in").mkdir()
    for name in ("a", "c", "e"):
        colour_video(folder / "in" / f"{name}.mp4", 80, movflags="faststart")
    cut = folder / "in" / "c.mp4"
    cut.write_bytes(cut.read_bytes()[: int(cut.stat().st_size * 0.6)])
    Image.fromarray(colour_frame(40)).save(folder / "in" / "b.png")
    (folder / "in" / "d.mp4").write_bytes(b"\0\1 broken")
    return folder


def job(folder: Path, output: Path, **stream: Any) -> ArchiveJob:
    bundle, sources = str(folder / "street.taidpt"), (str(folder / "in"),)
    tag = TagJob(bundle, sources, Outputs(top=3), BackendOptions("cpu"))
    tag = dataclasses.replace(tag, stream=StreamSettings(**stream))
    return ArchiveJob(tag, str(output), "patches")


def pieces(job: ArchiveJob, shard: Shard) -> Iterator[Piece]:
    """What the two stages give for a shard, through pickles as between processes."""
    decoder, tagger = ClipDecoder(job), CropTagger(job)
    for number, clip in enumerate(shard.clips):
        frames = 0
        for message in decoder.work(clip):
            content = message
            if isinstance(message, Crops):
                *signs, content, _ = tagger.work(pickle.loads(pickle.dumps(message)))
                assert signs == [()] * -(-len(message.crops) // job.tag.stream.batch)
            yield pickle.loads(pickle.dumps(Piece(shard.name, number, frames, content)))
            frames += len(message)


class Target:
    """An archive that pieces are written to."""

    def __init__(self, job: ArchiveJob) -> None:
        self.job, self.bundle = job, Bundle.load(job.tag.bundle)
        self.identity = identity_of(job, self.bundle)
        (self.shard,) = make_shards(find_clips(job.tag.sources), self.identity, 64)

    def write(self, given: list[Piece]) -> bool:
        """Write pieces; whether the shard is whole."""
        bundle, rows = self.bundle, RowMaker(layout_of("patches", self.bundle.manifest), 3)
        vocabulary = own_bank(bundle).vocabulary
        events = functools.partial(ClipEvents, rows, vocabulary, self.job.tag.stream)
        with ArchiveFolder.writing(self.job.output, self.identity, bundle.manifest) as archive:
            writer = ShardWriter(archive, self.shard, rows, events)
            for piece in given:
                if writer.add(piece):
                    return True
            writer.abandon()
        return False


def tables(path: Path) -> dict[str, list[dict[str, Any]]]:
    archive = ArchiveFolder.load(path)
    return {name: archive.read(name).to_pylist() for name in ("events", "frames", "errors")}


@pytest.mark.parametrize(
    "stream", [{}, {"batch": 4}, {"batch": 3, "skip_still": 20.0}], ids=["one", "batch", "still"]
)
def test_pieces_in_any_order_give_the_rows_of_one_process(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: dict[str, Any]
) -> None:
    monkeypatch.setattr(clip_tagger_module, "GROUP_BYTES", 1 if "skip_still" in stream else 3000)
    archive_here(job(folder, tmp_path / "here", **stream))
    expected = tables(tmp_path / "here")
    assert [row["frames"] > 10 for row in expected["errors"]] == [True, False]
    assert len(expected["events"]) > 2
    target = Target(job(folder, tmp_path / "there", **stream))
    given = list(pieces(target.job, target.shard))
    assert max(piece.first for piece in given if isinstance(piece.content, TaggedRows)) > 50
    given += given[::3]  # a lost node has repeated some
    random.Random(0).shuffle(given)
    assert target.write(given)
    assert tables(tmp_path / "there") == expected


def test_a_second_try_continues_the_first_where_both_agree(folder: Path, tmp_path: Path) -> None:
    """Of the first a decoder ended within the first clip; pieces of the second came later."""
    target = Target(job(folder, tmp_path / "there"))
    given = list(pieces(target.job, target.shard))
    ended = Piece(target.shard.name, 0, len(given[0].content), ClipEnd(80, None, error="it ended"))
    assert target.write([given[0], ended, *given])
    found = tables(tmp_path / "there")
    assert [Path(row["clip"]).name for row in found["errors"]] == ["a.mp4", "c.mp4", "d.mp4"]
    assert not any(row["clip"].endswith("a.mp4") for row in found["events"])


@pytest.mark.parametrize("gone", [0, 1, -1])
def test_a_shard_without_a_piece_leaves_nothing(folder: Path, tmp_path: Path, gone: int) -> None:
    target = Target(job(folder, tmp_path / "there"))
    given = list(pieces(target.job, target.shard))
    del given[gone]
    assert not target.write(given)
    assert not list((tmp_path / "there").glob("*/*"))


def test_a_graph_that_crashes_ends_the_clip_and_not_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The actor's own process ends; the next piece has another."""
    crash = (
        "import os; from taidpt.runtime.archive import clip_tagger as c; real = c.CropTagger.work\n"
        "def work(self, crops):\n"
        "    if crops.name.endswith('a.mp4'): os.kill(os.getpid(), 11)\n"
        "    return real(self, crops)\n"
        "c.CropTagger.work = work\n"
    )
    monkeypatch.setattr(worker_module, "_START", crash + worker_module._START)
    inference, decoder = _Inference(job(folder, folder / "none")), ClipDecoder(job(folder, folder))
    found = []
    for number, name in enumerate(("a.mp4", "e.mp4")):
        crops = next(decoder.work(clip_of(str(folder / "in" / name))))
        (batch,) = inference(_batch(Piece("one", number, 7, crops)))
        found += _objects(batch)
    ended, tagged = found
    assert (ended.content.frames, ended.content.events) == (7, None)
    assert ended.content.error.endswith("a.mp4: it ended the worker with SIGSEGV")
    assert len(tagged.content.rows) == 80
    inference._worker.close()

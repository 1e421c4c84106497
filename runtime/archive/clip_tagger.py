"""Tags one clip in this process; or, for a graph elsewhere, decodes it."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from taidpt.runtime.archive.inputs import Clip
from taidpt.runtime.archive.remote import fetch
from taidpt.runtime.archive.request import ArchiveJob, layout_of
from taidpt.runtime.archive.rows import FrameRows, RowMaker
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import InputError
from taidpt.runtime.preprocess.preprocessor import Preprocessor, U8Array
from taidpt.runtime.results import TagResult, Vocabulary
from taidpt.runtime.sources.open import open_source
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.stream.stream import FrameTagger, Stream
from taidpt.runtime.tag.job import open_tagger
from taidpt.runtime.tagger.active_bank import own_bank
from taidpt.runtime.tagger.tagger import Tagger

__all__ = [
    "GROUP_BYTES",
    "ClipDecoder",
    "ClipEnd",
    "ClipTagger",
    "ClipWork",
    "CropTagger",
    "Crops",
    "TaggedRows",
]

# A batch of rows leaves when it has this many frames, or at this age in seconds: features of
# patches take up to 400 KB a frame, and each batch is a sign of life.
_MOST_FRAMES, _OLDEST_S = 256, 1.0
# Preprocessed frames that leave together: 55 of 224 x 224. Ray needs some milliseconds for each
# group, and holds a few of them for each process.
GROUP_BYTES = 8 << 20


@dataclass(frozen=True)
class ClipEnd:
    """The end of a clip.

    Attributes:
        frames: number of its frames that were tagged.
        end_s: time of the last of them, in seconds; None for pictures.
        events: rows of the table of events, a record batch, empty of a `ClipDecoder`; None if a
            worker ended within the clip.
        error: why the clip ended early, or was not read at all.
    """

    frames: int
    end_s: float | None
    events: Any = None
    error: str | None = None

    def __len__(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class Crops:
    """Consecutive preprocessed frames of a clip, N in all.

    Attributes:
        name: of the clip.
        indices, times_s: N numbers of frames and N times.
        crop_of: for each of the N frames its row in `crops`; still frames share one.
        crops: uint8 [M, height, width, 3] or NV12.
    """

    name: str
    indices: list[int]
    times_s: list[float | None]
    crop_of: list[int]
    crops: U8Array
    what_hangs: ClassVar[str] = "the graph"

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, eq=False)
class TaggedRows:
    """What the graph gave for `Crops`.

    Attributes:
        rows: of the table of frames, a record batch of N rows.
        times_s: N times.
        scores: float32 [N, C].
    """

    rows: Any
    times_s: list[float | None]
    scores: Any

    def __len__(self) -> int:
        return len(self.times_s)


class ClipWork(Closing):
    """What a worker does with clips, one after the other."""

    def __init__(self, job: ArchiveJob, tagger: FrameTagger) -> None:
        self._settings = dataclasses.replace(job.tag.stream, keep_events=True)
        self._source = tagger.preprocess.source_options(job.tag.source)
        self._frame_tagger = tagger

    def work(self, clip: Clip) -> Iterator[Any]:
        """Yield messages, whose lengths are numbers of frames, then one `ClipEnd`.

        A clip that cannot be read to its end keeps the frames before. Empty messages are a sign of
        life, for example while a clip is copied from an address.

        Raises:
            BackendError: nothing can be copied from there, or the disk is full.
        """
        if not clip.is_remote:
            yield from self._work_on_file(clip, clip.path)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "clip").with_suffix(Path(clip.name).suffix)
            try:
                for _ in fetch(clip.path, copy):
                    yield ()
            except InputError as failure:
                yield ClipEnd(0, None, error=str(failure))
                return
            yield from self._work_on_file(clip, str(copy))

    def _work_on_file(self, clip: Clip, path: str) -> Iterator[Any]:
        try:
            stream = Stream(self._frame_tagger, open_source(path, self._source), self._settings)
        except InputError as failure:
            yield ClipEnd(0, None, error=str(failure).replace(path, clip.name))
            return
        frames, error = 0, None
        with stream:
            try:
                for message in self._messages(clip, stream):
                    frames += len(message)
                    yield message
            except InputError as failure:
                error = str(failure).replace(path, clip.name)
            yield dataclasses.replace(self._end(clip, stream, frames), error=error)

    def close(self) -> None:
        """Release the tagger, if there is one."""

    @abstractmethod
    def _messages(self, clip: Clip, stream: Stream) -> Iterator[Any]:
        """Messages of a clip; those before an InputError precede it."""

    @abstractmethod
    def _end(self, clip: Clip, stream: Stream, frames: int) -> ClipEnd:
        """The end of a clip that had some frames."""


class ClipTagger(ClipWork):
    """Tags clips; its messages are record batches of frames."""

    def __init__(self, job: ArchiveJob) -> None:
        """Load the bundle and the bank.

        Raises:
            TaidptError: they cannot be used here.
        """
        self._tagger = _open(job)
        super().__init__(job, self._tagger)
        self._rows = _row_maker(job, self._tagger.bundle)
        self._last: Moment | None = None

    def close(self) -> None:
        """Release the tagger."""
        self._tagger.close()

    def _messages(self, clip: Clip, stream: Stream) -> Iterator[Any]:
        waiting, begun_s, error = FrameRows(), time.monotonic(), None
        self._last = None
        try:
            for moment in stream:
                self._last = moment
                waiting.add(moment.frame.index, moment.time, moment.result, self._rows.layout)
                if len(waiting) == _MOST_FRAMES or time.monotonic() - begun_s > _OLDEST_S:
                    yield self._rows.frames(clip.name, waiting, self._tagger.vocabulary)
                    waiting, begun_s = FrameRows(), time.monotonic()
        except InputError as failure:
            error = failure
        if len(waiting):
            yield self._rows.frames(clip.name, waiting, self._tagger.vocabulary)
        if error is not None:
            raise error

    def _end(self, clip: Clip, stream: Stream, frames: int) -> ClipEnd:
        last, vocabulary = self._last, self._tagger.vocabulary
        if last is None:
            return ClipEnd(frames, None)
        if last.time is None:
            events = self._rows.picture_events(clip.name, last.result.scores, vocabulary)
            return ClipEnd(frames, None, events)
        events = self._rows.events(clip.name, stream.timeline(), vocabulary)
        return ClipEnd(frames, stream.last_s(), events)


@dataclass(frozen=True)
class _Decoding:
    """The part of a tagger that a stream of preprocessed frames uses."""

    bundle: Bundle
    vocabulary: Vocabulary
    preprocess: Preprocessor


class ClipDecoder(ClipWork):
    """Decodes and preprocesses clips for a `CropTagger`; its messages are `Crops`.

    The same clip gives the same messages each time, but for empty ones.
    """

    def __init__(self, job: ArchiveJob) -> None:
        """Load the bundle, without a graph."""
        bundle = Bundle.load(job.tag.bundle)
        preprocess = Preprocessor(bundle.manifest.input, job.tag.resize)
        decoding = _Decoding(bundle, own_bank(bundle).vocabulary, preprocess)
        super().__init__(job, cast(FrameTagger, decoding))

    def _messages(self, clip: Clip, stream: Stream) -> Iterator[Any]:
        group, begun_s, error = _CropGroup(clip.name), time.monotonic(), None
        try:
            for item in stream.prepared():
                if item.crop is not None and group.size >= GROUP_BYTES:
                    yield group.finish()
                    group, begun_s = _CropGroup(clip.name), time.monotonic()
                group.add(item.frame.index, item.frame.time_s, item.crop)
                if time.monotonic() - begun_s > _OLDEST_S:
                    yield ()
                    begun_s = time.monotonic()
        except InputError as failure:
            error = failure
        if group.indices:
            yield group.finish()
        if error is not None:
            raise error

    def _end(self, clip: Clip, stream: Stream, frames: int) -> ClipEnd:
        return ClipEnd(frames, None, ())


class _CropGroup:
    """`Crops` that grow."""

    def __init__(self, clip: str) -> None:
        self.indices: list[int] = []
        self.size = 0
        self._clip = clip
        self._times_s: list[float | None] = []
        self._crop_of: list[int] = []
        self._crops: list[U8Array] = []

    def add(self, index: int, time_s: float | None, crop: U8Array | None) -> None:
        """Append a frame; one without a crop is still, and never the first."""
        if crop is not None:
            self._crops.append(crop)
            self.size += crop.nbytes
        self.indices.append(index)
        self._times_s.append(time_s)
        self._crop_of.append(len(self._crops) - 1)

    def finish(self) -> Crops:
        return Crops(self._clip, self.indices, self._times_s, self._crop_of, np.stack(self._crops))


class CropTagger(Closing):
    """Tags what a `ClipDecoder` gives."""

    def __init__(self, job: ArchiveJob) -> None:
        """Load the bundle and the bank.

        Raises:
            TaidptError: they cannot be used here.
        """
        self._tagger = _open(job)
        self._rows = _row_maker(job, self._tagger.bundle)
        self._batch = job.tag.stream.batch

    def close(self) -> None:
        """Release the tagger."""
        self._tagger.close()

    def work(self, crops: Crops) -> Iterator[Any]:
        """Run the graph on batches of the job's size; yield `TaggedRows`, then a `ClipEnd`.

        An empty message after each batch is a sign of life.

        Raises:
            BackendError: the backend failed, or the scores are not finite.
        """
        results: list[TagResult] = []
        for start in range(0, len(crops.crops), self._batch):
            results += self._tagger.tag_batch(crops.crops[start : start + self._batch])
            yield ()
        waiting = FrameRows()
        for index, time_s, crop in zip(crops.indices, crops.times_s, crops.crop_of, strict=True):
            waiting.add(index, time_s, results[crop], self._rows.layout)
        rows = self._rows.frames(crops.name, waiting, self._tagger.vocabulary)
        yield TaggedRows(rows, crops.times_s, np.stack(waiting.scores))
        yield ClipEnd(len(crops), None)


def _open(job: ArchiveJob) -> Tagger:
    tagger = open_tagger(job.tag)
    if job.tag.bank is not None:
        tagger.use_bank(job.tag.bank)
    return tagger


def _row_maker(job: ArchiveJob, bundle: Bundle) -> RowMaker:
    return RowMaker(layout_of(job.features, bundle.manifest), job.tag.outputs.top)

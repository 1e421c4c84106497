"""Tags one clip in this process."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.runtime.archive.features import encode_features
from taidpt.runtime.archive.inputs import Clip
from taidpt.runtime.archive.remote import fetch
from taidpt.runtime.archive.request import ArchiveJob, layout_of
from taidpt.runtime.archive.rows import FrameRows, RowMaker
from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.open import open_source
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.stream.stream import Stream
from taidpt.runtime.tag.job import open_tagger

__all__ = ["ClipEnd", "ClipTagger"]

# A batch of rows leaves when it has this many frames, or at this age in seconds: features of
# patches take up to 400 KB a frame, and each batch is a sign of life.
_MOST_FRAMES, _OLDEST_S = 256, 1.0


@dataclass(frozen=True)
class ClipEnd:
    """The end of a clip.

    Attributes:
        frames: number of its frames that were tagged.
        end_s: time of the last of them, in seconds; None for pictures.
        events: rows of the table of events, a record batch; None if a worker ended within the clip.
        error: why the clip ended early, or was not read at all.
    """

    frames: int
    end_s: float | None
    events: Any = None
    error: str | None = None


class ClipTagger(Closing):
    """A tagger for clips, one after the other."""

    def __init__(self, job: ArchiveJob) -> None:
        """Load the bundle and the bank.

        Raises:
            TaidptError: they cannot be used here.
        """
        self._settings = dataclasses.replace(job.tag.stream, keep_events=True)
        self._tagger = open_tagger(job.tag)
        if job.tag.bank is not None:
            self._tagger.use_bank(job.tag.bank)
        manifest = self._tagger.bundle.manifest
        colours = manifest.input.source_colours
        self._source = dataclasses.replace(job.tag.source, colours=colours)
        self.rows = RowMaker(layout_of(job.features, manifest), job.tag.outputs.top)

    def close(self) -> None:
        """Release the tagger."""
        self._tagger.close()

    def tag(self, clip: Clip) -> Iterator[Any]:
        """Yield record batches of frames, then one `ClipEnd`.

        A clip that cannot be read to its end keeps the rows of the frames before. While one is
        copied from an address, batches without rows are a sign of life.

        Raises:
            BackendError: nothing can be copied from there, or the disk is full.
        """
        if not clip.is_remote:
            yield from self._tag_file(clip, clip.path)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "clip").with_suffix(Path(clip.name).suffix)
            try:
                for _ in fetch(clip.path, copy):
                    yield self.rows.no_frames()
            except InputError as failure:
                yield ClipEnd(0, None, error=str(failure))
                return
            yield from self._tag_file(clip, str(copy))

    def _tag_file(self, clip: Clip, path: str) -> Iterator[Any]:
        try:
            stream = Stream(self._tagger, open_source(path, self._source), self._settings)
        except InputError as failure:
            yield ClipEnd(0, None, error=str(failure).replace(path, clip.name))
            return
        vocabulary, frames = self._tagger.vocabulary, 0
        last: Moment | None = None
        error: str | None = None
        with stream:
            try:
                for waiting, moment in self._batches(stream):
                    frames, last = frames + len(waiting), moment
                    yield self.rows.frames(clip.name, waiting, vocabulary)
            except InputError as failure:
                error = str(failure).replace(path, clip.name)
            events = None if last is None else self._events(clip, stream, last)
            end_s = None if last is None or last.time is None else stream.last_s()
        yield ClipEnd(frames, end_s, events, error)

    def _events(self, clip: Clip, stream: Stream, last: Moment) -> Any:
        vocabulary = self._tagger.vocabulary
        if last.time is None:
            return self.rows.picture_events(clip.name, last.result.scores, vocabulary)
        return self.rows.events(clip.name, stream.timeline(), vocabulary)

    def _batches(self, stream: Stream) -> Iterator[tuple[FrameRows, Moment]]:
        """Frames in groups, each with its last moment; those before an error precede it."""
        waiting, begun_s, last = FrameRows(), time.monotonic(), None
        try:
            for last in stream:
                self._add(waiting, last)
                if len(waiting) == _MOST_FRAMES or time.monotonic() - begun_s > _OLDEST_S:
                    yield waiting, last
                    waiting, begun_s = FrameRows(), time.monotonic()
        except InputError:
            if last is not None and len(waiting):
                yield waiting, last
            raise
        if last is not None and len(waiting):
            yield waiting, last

    def _add(self, waiting: FrameRows, moment: Moment) -> None:
        result = moment.result
        waiting.indices.append(moment.frame.index)
        waiting.times_s.append(moment.time)
        waiting.scores.append(result.scores)
        if self.rows.layout.kind != "none":
            assert result.global_features is not None  # `layout_of` has checked it
            layout = self.rows.layout
            features = encode_features(result.global_features, result.patch_features, layout)
            waiting.features.append(features)

"""The tagger: a bundle and a backend behind one call."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from taidpt.runtime.backends.base import Backend, BackendOptions, Frames, ProviderSpec
from taidpt.runtime.backends.choice import Device, open_backend
from taidpt.runtime.bank import FloatArray, map_local_embeddings
from taidpt.runtime.bundle import BANK_FILE, Bundle
from taidpt.runtime.closing import Closing
from taidpt.runtime.device_frames import DeviceFrames, take_frames
from taidpt.runtime.errors import BackendError, BundleError, InputError
from taidpt.runtime.preprocess import Preprocessor
from taidpt.runtime.results import TagBatch, TagResult, Vocabulary

if TYPE_CHECKING:
    from taidpt.runtime.stream import Stream, StreamInput, StreamSettings

__all__ = ["Tagger"]

FrameArray = npt.NDArray[Any]
_LOAD_TRIES = 3


class Tagger(Closing):
    """Tags frames. One tagger may be called from several threads at once.

    tagger = Tagger.load("street.taidpt")
    result = tagger(frame)          # uint8 RGB [H, W, 3] of any size
    result.tags                     # sorted by score: name, score, on
    result.heatmap("dog")           # float32 [rows, columns]
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        resize: str = "exact",
        device: Device | None = None,
    ) -> None:
        self.bundle = bundle
        self.backend = backend
        self.device = device or Device(backend.device, backend.name, {})
        self.preprocess = Preprocessor(bundle.manifest.input, resize)
        self.vocabulary = _vocabulary(bundle)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "auto",
        providers: Sequence[ProviderSpec] | None = None,
        threads: int | None = None,
        trust_engine: bool = False,
        resize: str = "exact",
    ) -> Tagger:
        """Open a bundle on a device.

        Args:
            path: the folder `NAME.taidpt`.
            device: "auto" takes the best that works, and says in the log and in `device` which
                and why not the others; "tensorrt", "tensorrt-rtx" (an engine in the bundle),
                "cuda", "cpu" and "ort-tensorrt" (ONNX Runtime) work or fail.
            providers: ONNX Runtime providers in order, overriding `device`.
            threads: threads inside one call; None leaves it to the backend.
            trust_engine: load engines and plugin libraries that this machine has no record of.
            resize: "exact" as open_clip does it, or "fast"; see `Preprocessor`.
        Raises:
            InputError: no such bundle, or an unknown option.
            BundleError: the bundle is damaged or newer.
            BackendError: the device cannot be used here.
        """
        options = BackendOptions(device, providers, threads, trust_engine)
        for attempt in range(_LOAD_TRIES):
            bundle = Bundle.load(path)
            try:
                backend, found = open_backend(bundle, options)
                tagger = cls(bundle, backend, resize, found)
            except BundleError:
                # an export may have put another folder in place after its files were checked
                if bundle.is_current() or attempt == _LOAD_TRIES - 1:
                    raise
                continue
            if bundle.is_current():
                return tagger
            tagger.close()
        raise BundleError(f"{path}: is being replaced again and again; try again")

    @property
    def names(self) -> tuple[str, ...]:
        """The tags' names, in the order of `scores`."""
        return self.vocabulary.names

    # A 3-dimensional array is a frame and a 4-dimensional one a batch, which array types do not
    # tell apart: `tag` and `tag_batch` are the calls whose types a checker can follow.
    @overload
    def __call__(self, frames: FrameArray) -> Any: ...
    @overload
    def __call__(self, frames: Sequence[FrameArray]) -> TagBatch: ...
    def __call__(self, frames: FrameArray | Sequence[FrameArray]) -> Any:
        """Tag a frame, or a batch: a list of frames of any sizes, or an array [N, H, W, 3].

        Arrays of other libraries come without a copy, by DLPack or `__cuda_array_interface__`: on
        the CPU of any size; on a GPU uint8, dense, of the bundle's own size and format.

        Returns:
            A TagResult for one frame, a TagBatch for a batch.
        Raises:
            InputError: it is no frame; see `Preprocessor`.
            BackendError: the backend failed, or the scores are not finite.
        """
        if isinstance(frames, (list, tuple)):
            return self.tag_batch(frames)
        taken: Any = take_frames(frames)
        shape = () if taken is None else taken.shape
        if len(shape) == 4 or shape[1:] == self.bundle.manifest.input.frame_shape:
            return self.tag_batch(taken)
        return self.tag(frames if taken is None else taken)  # type: ignore[arg-type]  # told there

    def tag(self, frame: FrameArray) -> TagResult:
        """Tag one frame of any size; see `Preprocessor` for its types."""
        taken = take_frames(frame)
        if isinstance(taken, DeviceFrames):
            ready: Frames = self.preprocess.on_device(taken)
        else:
            ready = self.preprocess(frame if taken is None else taken)[None]
        return TagBatch(self._run(ready), self.vocabulary)[0]

    def tag_batch(self, frames: Sequence[FrameArray] | FrameArray) -> TagBatch:
        """Tag a list of frames of any sizes, or an array [N, H, W, 3], in one run."""
        taken = None if isinstance(frames, (list, tuple)) else take_frames(frames)
        if isinstance(taken, DeviceFrames):
            ready: Frames = self.preprocess.on_device(taken)
        else:
            ready = self.preprocess.batch(list(frames) if taken is None else taken)
        return TagBatch(self._run(ready), self.vocabulary)

    def with_threshold(self, on: float, off: float | None = None) -> Tagger:
        """A tagger of the same bundle and backend with one threshold for all tags.

        Args:
            on: a score of at least this turns a tag on.
            off: a score below this turns it off again; None takes `on`.
        """
        changed = copy.copy(self)
        changed.vocabulary = self.vocabulary.with_threshold(on, on if off is None else off)
        return changed

    def stream(
        self, source: StreamInput, settings: StreamSettings | None = None, **options: Any
    ) -> Stream:
        """Decode, tag and smooth: iterate the result for moments.

        Args:
            source: a path, an open source, or arrays; see `open_source`.
            settings: batch size, smoothing, least durations.
            options: of `SourceOptions`: every, max_fps, recursive, fps.
        Raises:
            InputError: the source cannot be opened, or an option is wrong.
        """
        from taidpt.runtime.stream import open_stream

        return open_stream(self, source, settings, options)

    def close(self) -> None:
        """Let go of the backend; the tagger must not be called afterwards."""
        self.backend.close()

    def __repr__(self) -> str:
        return f"Tagger({str(self.bundle.path)!r}, {len(self.names)} tags, {self.device})"

    def _run(self, frames: Frames) -> dict[str, FloatArray]:
        outputs = dict(self.backend.run(frames))
        if not np.isfinite(outputs["scores"]).all():
            raise BackendError(
                f"{self.bundle.path}: {self.backend.name} gave scores that are not finite; export "
                "with a higher precision"
            )
        return outputs


def _vocabulary(bundle: Bundle) -> Vocabulary:
    manifest = bundle.manifest
    try:
        rows = map_local_embeddings(bundle.file(BANK_FILE))
        return Vocabulary(manifest.tags, manifest.model.grid, rows)
    except InputError as error:
        raise BundleError(f"{bundle.path}: {error}") from None

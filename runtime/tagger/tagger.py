"""The tagger: a bundle and a backend in one callable object."""

from __future__ import annotations

import copy
import dataclasses
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from taidpt.runtime.adapting.similarity import Features
from taidpt.runtime.backends.base import (
    Backend,
    BackendOptions,
    BankInputs,
    Frames,
    ProviderSpec,
)
from taidpt.runtime.backends.choice import Device, open_backend
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.manifest import TOP_OUTPUTS
from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import BackendError, BundleError, InputError
from taidpt.runtime.preprocess.preprocessor import Preprocessor
from taidpt.runtime.results import TagBatch, TagResult, Vocabulary
from taidpt.runtime.tagger.active_bank import (
    ActiveBank,
    bundle_bank,
    fit_bank,
    own_bank,
)
from taidpt.runtime.tagger.recent_frames import RecentFrames
from taidpt.runtime.triton_client import SCHEME

if TYPE_CHECKING:
    from PIL.Image import Image

    from taidpt.runtime.stream.stream import Stream, StreamInput, StreamSettings
    from taidpt.runtime.tagger.live_bank import LiveBank

__all__ = ["Tagger"]

FrameArray = npt.NDArray[Any]
# A bundle that is replaced while it is read is read again. Two replacements within one load are
# possible where a script exports in a loop; more mean that something is wrong.
_LOAD_TRIES = 3


class DLPackArray(Protocol):
    """An array of another library with DLPack."""

    def __dlpack__(self) -> object:
        """The array as a capsule."""


class CudaArray(Protocol):
    """An array in GPU memory, as Numba and CuPy describe it."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Address, shape and type."""


GpuArray = DLPackArray | CudaArray
# The name in quotes: Pillow is loaded only where a picture is.
Picture: TypeAlias = "FrameArray | GpuArray | str | os.PathLike[str] | Image"


class Tagger(Closing):
    """Tags frames; several threads may call one tagger at once.

    tagger = Tagger.load("street.taidpt")
    result = tagger(frame)          # uint8 RGB [H, W, 3] of any size, a path, or a PIL picture
    "dog" in result                 # whether the tag is on
    result["dog"].score             # of any tag, on or off
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
        self._active = own_bank(bundle)
        self._one_threshold: tuple[float, float] | None = None
        self._swap = threading.Lock()
        self.recent = RecentFrames()

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
            path: the folder `NAME.taidpt`; or `triton://HOST[:PORT]/MODEL`, a model of a Triton
                Inference Server that `taidpt export triton` wrote.
            device: "auto" uses the best device that works; the attribute `device` names it, and
                why others were not used. "tensorrt", "tensorrt-rtx" (an engine in
                the bundle), "cuda", "cpu" and "ort-tensorrt" (ONNX Runtime) fail if unavailable.
            providers: ONNX Runtime providers in order of preference; they override `device`.
            threads: threads inside one call; None leaves the number to the backend.
            trust_engine: load engines that were not built on this machine.
            resize: "exact" (as open_clip), "fast" or "decoder"; see `Preprocessor`.
        Raises:
            InputError: there is no such bundle, or an option is unknown.
            BundleError: the bundle is damaged or newer than this version.
            BackendError: the device cannot be used here, or the server does not answer.
        """
        options = BackendOptions(device, providers, threads, trust_engine)
        if isinstance(path, str) and path.startswith(SCHEME):
            from taidpt.runtime.triton_client.backend import open_server

            remote, server, chosen = open_server(path, options)
            return cls(remote, server, resize, chosen)
        for attempt in range(_LOAD_TRIES):
            bundle = Bundle.load(path)
            try:
                backend, chosen = open_backend(bundle, options)
                tagger = cls(bundle, backend, resize, chosen)
            except BundleError:
                # an export may have replaced the folder after its files were checked
                if bundle.is_current() or attempt == _LOAD_TRIES - 1:
                    raise
                continue
            if bundle.is_current():
                return tagger
            tagger.close()
        raise BundleError(f"{path}: was replaced {_LOAD_TRIES} times while it was read; try again")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the current tags, in the order of `scores`."""
        return self.vocabulary.names

    @property
    def vocabulary(self) -> Vocabulary:
        """The current tags, thresholds and grid; results keep those they were scored with."""
        return self._active.vocabulary

    @property
    def bank(self) -> LiveBank:
        """The current tags, to read, add and remove."""
        from taidpt.runtime.tagger.live_bank import LiveBank

        return LiveBank(
            self.bundle,
            lambda: self.class_bank,
            self.change_bank,
            self.features,
            self.recent.features,
        )

    @property
    def bank_inputs(self) -> BankInputs:
        """The backend's inputs beside the frames, by name; empty for a constant bank."""
        return self._active.inputs

    @property
    def class_bank(self) -> ClassBank:
        """The current bank with its thresholds, as `ClassBank.save` writes it."""
        active = self._active
        return bundle_bank(self.bundle) if active.bank is None else active.bank

    def use_bank(self, bank: str | Path | ClassBank) -> None:
        """Score with other tags, starting with the next run of the graph.

        Where the bundle's bank is a constant, only thresholds and probability maps may differ.

        Any thread may call this at any time: a batch that is being scored keeps its bank. Streams
        continue: removed tags go off, new ones start, those in both banks keep their state.

        Args:
            bank: any number of tags, or a file that `taidpt bank make` wrote. Do not change the
                arrays afterwards.
        Raises:
            InputError: the bundle's bank is a constant and other rows are given, or the bank is
                missing or belongs to another model; the tagger keeps its bank.
            BundleError: the file is damaged.
        """
        source = "the bank" if isinstance(bank, ClassBank) else str(bank)
        loaded = bank if isinstance(bank, ClassBank) else ClassBank.load(bank)
        with self._swap:
            self._activate(fit_bank(loaded, self.bundle, source))

    def change_bank(self, change: Callable[[ClassBank], ClassBank]) -> None:
        """Replace the bank by `change(bank)`; concurrent changes are applied one after another.

        Raises:
            InputError: the new bank does not fit; see `use_bank`.
        """
        with self._swap:
            self._activate(fit_bank(change(self.class_bank), self.bundle, "the changed bank"))

    @overload
    def __call__(self, frames: list[Any] | tuple[Any, ...], *, bgr: bool = False) -> TagBatch: ...
    @overload
    def __call__(self, frames: Picture, *, bgr: bool = False) -> TagResult: ...
    def __call__(
        self, frames: Picture | list[Any] | tuple[Any, ...], *, bgr: bool = False
    ) -> TagResult | TagBatch:
        """Tag one frame, as `tag` does, or a list of frames, as `tag_batch` does.

        Returns:
            A TagResult for one frame, a TagBatch for a list.
        Raises:
            InputError: `frames` is not a frame; see `Preprocessor`.
            BackendError: the backend failed, or the scores are not finite.
        """
        if isinstance(frames, (list, tuple)):
            return self.tag_batch(frames, bgr=bgr)
        return self.tag(frames, bgr=bgr)

    def tag(self, frame: Picture, *, bgr: bool = False) -> TagResult:
        """Tag one frame of any size.

        Args:
            frame: a uint8 RGB array [H, W, 3] (`Preprocessor` lists others), a picture's path, or
                a PIL picture. Arrays of other libraries are read without a copy through DLPack or
                `__cuda_array_interface__`: in host memory of any size; on a GPU uint8, dense, and
                of the bundle's own size and format.
            bgr: the array's channels are blue, green, red, as OpenCV has them.
        """
        array = _as_array(_picture(frame, bgr))
        shape = tuple(getattr(array, "shape", ()))
        if len(shape) == 4 or shape[1:] == self.bundle.manifest.input.frame_shape:
            raise InputError(
                f"expected one frame, got shape {list(shape)}; for a batch use tagger.tag_batch"
            )
        if isinstance(array, np.ndarray):
            return self._run(self._rgb(self.preprocess(array)[None], bgr))[0]
        return self._run(self._rgb(self.preprocess.on_device(array), bgr))[0]

    def tag_batch(
        self, frames: Sequence[Any] | FrameArray | GpuArray, *, bgr: bool = False
    ) -> TagBatch:
        """Tag a list of frames of any sizes, or an array [N, H, W, 3], in one run; see `tag`."""
        if isinstance(frames, (list, tuple)):
            return self._run(
                self._rgb(self.preprocess.batch([_picture(frame, bgr) for frame in frames]), bgr)
            )
        batch = _as_array(frames)
        if isinstance(batch, np.ndarray):
            return self._run(self._rgb(self.preprocess.batch(batch), bgr))
        return self._run(self._rgb(self.preprocess.on_device(batch), bgr))

    def features(self, frames: Sequence[Any] | FrameArray) -> Features:
        """What the encoder gives for frames, taken as by `tag_batch`; N in one run.

        Raises:
            InputError: the graph gives no global features.
        """
        outputs = self.tag_batch(frames).outputs
        if "global_features" not in outputs:
            raise InputError(
                f"{self.bundle.path}: its graph gives no global features; export it again"
            )
        return Features(outputs["global_features"], outputs["patch_features"])

    def remember(self, result: TagResult) -> None:
        """Keep a stream's frame as one of the scene, with which `bank.add` compares pictures."""
        self.recent.offer(result)

    def _rgb(self, frames: Frames, bgr: bool) -> Frames:
        """Reverse the channels of preprocessed frames, which are smaller than those that came."""
        if not bgr:
            return frames
        if not isinstance(frames, np.ndarray) or frames.shape[-1] != 3:
            raise InputError("bgr=True is for arrays [H, W, 3] in host memory; convert them first")
        return np.ascontiguousarray(frames[..., ::-1])

    def with_threshold(self, on: float, off: float | None = None) -> Tagger:
        """A second tagger of the same bundle and backend with one threshold for all tags.

        Its bank is its own: `use_bank` of one tagger does not affect the other.

        Args:
            on: scores of at least this turn a tag on.
            off: scores below this turn it off again; None means `on`.
        """
        changed = copy.copy(self)
        changed._one_threshold = on, on if off is None else off
        changed._activate(self._active)
        return changed

    def stream(
        self, source: StreamInput, settings: StreamSettings | None = None, **options: Any
    ) -> Stream:
        """Decode, tag and smooth; iterate the returned stream for moments.

        Args:
            source: a path, an open source, or arrays; see `open_source`.
            settings: batch size, smoothing, shortest durations.
            options: fields of `StreamSettings` (batch, smoothing_s, …) and of `SourceOptions`
                (every, max_fps, recursive, fps, …).
        Raises:
            InputError: the source cannot be opened, or an option is wrong.
        """
        from taidpt.runtime.stream.stream import open_stream

        return open_stream(self, source, settings, options)

    def close(self) -> None:
        """Release the backend; the tagger must not be called afterwards."""
        self.backend.close()

    def __repr__(self) -> str:
        return f"Tagger({str(self.bundle.path)!r}, {len(self.names)} tags, {self.device})"

    def _activate(self, active: ActiveBank) -> None:
        """Make a bank the current one, by one assignment, which is atomic for other threads."""
        if self._one_threshold is not None:
            vocabulary = active.vocabulary.with_threshold(*self._one_threshold)
            active = dataclasses.replace(active, vocabulary=vocabulary)
        self._active = active

    def _run(self, frames: Frames) -> TagBatch:
        active = self._active  # read once: another thread may replace it during the run
        outputs = self.backend.run(frames, active.inputs)
        scores = outputs["scores"] if "scores" in outputs else outputs[TOP_OUTPUTS[0]]
        if not np.isfinite(scores).all():
            raise BackendError(
                f"{self.bundle.path}: {self.backend.name} returned scores that are not finite; "
                "export with a higher precision"
            )
        return TagBatch(outputs, active.vocabulary)


def _picture(frame: Any, bgr: bool) -> Any:
    """Read a path or a PIL picture; return any other object as it is."""
    if isinstance(frame, np.ndarray):
        return frame
    image = getattr(sys.modules.get("PIL.Image"), "Image", None)
    if isinstance(frame, (str, os.PathLike)):
        from taidpt.runtime.sources.picture_files import read_image

        picture = read_image(Path(frame))
    elif image is not None and isinstance(frame, image):
        from taidpt.runtime.sources.picture_files import image_pixels

        picture = image_pixels(frame)
    else:
        return frame
    if bgr:
        raise InputError("bgr=True is for arrays: files and PIL pictures are read as RGB")
    return picture


def _as_array(frames: Any) -> Any:
    """Convert a DLPack or `__cuda_array_interface__` object without a copy; return others as is."""
    if isinstance(frames, np.ndarray):
        return frames
    from taidpt.runtime.preprocess.device_frames import take_frames

    array = take_frames(frames)
    return frames if array is None else array

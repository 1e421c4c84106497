"""The tagger: a bundle and a backend behind one call."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

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
from taidpt.runtime.errors import BackendError, BundleError
from taidpt.runtime.preprocess.preprocessor import Preprocessor
from taidpt.runtime.results import TagBatch, TagResult, Vocabulary
from taidpt.runtime.tagger.active_bank import (
    ActiveBank,
    bundle_bank,
    check_swappable,
    fit_bank,
    own_bank,
)
from taidpt.runtime.tagger.live_bank import LiveBank

if TYPE_CHECKING:
    from taidpt.runtime.stream.stream import Stream, StreamInput, StreamSettings

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
        self._active = own_bank(bundle)
        self._one_threshold: tuple[float, float] | None = None
        self._swap = threading.Lock()

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
            trust_engine: load engines that this machine has no record of.
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
        """The tags' names now, in the order of `scores`."""
        return self.vocabulary.names

    @property
    def vocabulary(self) -> Vocabulary:
        """The tags, thresholds and grid now; results keep those that they were scored with."""
        return self._active.vocabulary

    @property
    def bank(self) -> LiveBank:
        """The tags now, to look at, add to and take from."""
        return LiveBank(self.bundle, lambda: self.class_bank, self.change_bank)

    @property
    def bank_inputs(self) -> BankInputs:
        """What the backend is fed beside frames now; empty for a constant bank."""
        return self._active.inputs

    @property
    def class_bank(self) -> ClassBank:
        """The bank now, with its thresholds, as `ClassBank.save` writes it."""
        active = self._active
        return bundle_bank(self.bundle) if active.bank is None else active.bank

    def use_bank(self, bank: str | Path | ClassBank) -> None:
        """Score with other tags from the next run of the graph on; may be called at any time.

        From any thread: a batch that is being scored ends with the bank that it began with. A
        stream goes on: tags that vanish end, new ones begin, those in both keep their state.

        Args:
            bank: any number of tags, or a file of them as `taidpt bank` writes it; it must not
                be changed afterwards.
        Raises:
            InputError: the bundle's bank is a constant, or the bank is missing, of another model
                or dimension; the tagger keeps the bank that it has.
            BundleError: the file is damaged.
        """
        source = "the bank" if isinstance(bank, ClassBank) else str(bank)
        check_swappable(self.bundle)
        loaded = bank if isinstance(bank, ClassBank) else ClassBank.load(bank)
        with self._swap:
            self._take(fit_bank(loaded, self.bundle, source))

    def change_bank(self, change: Callable[[ClassBank], ClassBank]) -> None:
        """Replace the bank by what `change` makes of it; two changes at once follow each other."""
        check_swappable(self.bundle)
        with self._swap:
            self._take(fit_bank(change(self.class_bank), self.bundle, "the changed bank"))

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
        taken: Any = _as_array(frames)
        shape = getattr(taken, "shape", ())
        if len(shape) == 4 or shape[1:] == self.bundle.manifest.input.frame_shape:
            return self.tag_batch(taken)
        return self.tag(taken)

    def tag(self, frame: FrameArray) -> TagResult:
        """Tag one frame of any size; see `Preprocessor` for its types."""
        taken = _as_array(frame)
        if isinstance(taken, np.ndarray):
            ready: Frames = self.preprocess(taken)[None]
        else:
            ready = self.preprocess.on_device(taken)
        return self._run(ready)[0]

    def tag_batch(self, frames: Sequence[FrameArray] | FrameArray) -> TagBatch:
        """Tag a list of frames of any sizes, or an array [N, H, W, 3], in one run."""
        taken = frames if isinstance(frames, (list, tuple)) else _as_array(frames)
        if isinstance(taken, (list, tuple, np.ndarray)):
            ready: Frames = self.preprocess.batch(taken)
        else:
            ready = self.preprocess.on_device(taken)
        return self._run(ready)

    def with_threshold(self, on: float, off: float | None = None) -> Tagger:
        """A tagger of the same bundle and backend with one threshold for all tags.

        It has a bank of its own from now on: `use_bank` on one leaves the other alone.

        Args:
            on: a score of at least this turns a tag on.
            off: a score below this turns it off again; None takes `on`.
        """
        changed = copy.copy(self)
        changed._one_threshold = on, on if off is None else off
        changed._take(self._active)
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
        from taidpt.runtime.stream.stream import open_stream

        return open_stream(self, source, settings, options)

    def close(self) -> None:
        """Let go of the backend; the tagger must not be called afterwards."""
        self.backend.close()

    def __repr__(self) -> str:
        return f"Tagger({str(self.bundle.path)!r}, {len(self.names)} tags, {self.device})"

    def _take(self, active: ActiveBank) -> None:
        """Make a bank the current one: a single assignment, which other threads see whole."""
        if self._one_threshold is not None:
            words = active.vocabulary.with_threshold(*self._one_threshold)
            active = dataclasses.replace(active, vocabulary=words)
        self._active = active

    def _run(self, frames: Frames) -> TagBatch:
        active = self._active  # once: another thread may swap it before the scores are read
        outputs = self.backend.run(frames, active.inputs)
        scores = outputs["scores"] if "scores" in outputs else outputs[TOP_OUTPUTS[0]]
        if not np.isfinite(scores).all():
            raise BackendError(
                f"{self.bundle.path}: {self.backend.name} gave scores that are not finite; export "
                "with a higher precision"
            )
        return TagBatch(outputs, active.vocabulary)


def _as_array(frames: Any) -> Any:
    """Arrays of other libraries by their protocols; what has none comes back as it is."""
    if isinstance(frames, np.ndarray):
        return frames
    from taidpt.runtime.preprocess.device_frames import take_frames

    taken = take_frames(frames)
    return frames if taken is None else taken

"""Calibration: the user's frames, and the ranges of the encoder's activations on them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.export.parity.reference_pictures import frame_maker
from taidpt.export.precision.request import EngineRequest
from taidpt.progress import Progress
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["Frames", "activation_ranges", "calibration_frames", "requested_frames"]

Frames = npt.NDArray[np.uint8]
# Ranges settle within a few dozen frames; below eight a single unusual one decides them. More than
# 128 only take time, which is why a longer video is sampled. Batches are small because the
# calibrator keeps every activation of a batch in memory.
_LEAST_FRAMES = 8
_MOST_FRAMES = 128
_BATCH = 4


def requested_frames(bundle: Bundle, request: EngineRequest) -> Frames:
    """The calibration frames of a request, as the bundle's graph takes them.

    Raises:
        InputError: none were given, or they cannot be used.
    """
    if request.calibrate is None:
        raise InputError(
            f"{request.options.precision} needs pictures or a video like those it will see: "
            "--frames SOURCE"
        )
    return calibration_frames(request.calibrate, frame_maker(bundle.manifest.input))


def calibration_frames(source: Path, prepare: Callable[[npt.NDArray[Any]], Frames]) -> Frames:
    """Frames of the user's pictures or video, evenly spaced, as the graph takes them.

    Args:
        source: a folder of pictures, a picture, or a video.
        prepare: the runtime's preprocessing.
    Returns:
        uint8 [N, *frame shape], N from 8 to 128.
    Raises:
        InputError: too few can be read, or a video ends early.
    """
    from taidpt.runtime.sources.base import SourceOptions
    from taidpt.runtime.sources.open import open_source

    kept: list[Frames] = []
    step, seen = 1, 0
    with open_source(source, SourceOptions(recursive=True)) as frames:
        for frame in frames:
            if seen % step == 0:
                kept.append(prepare(frame.image))
            seen += 1
            if len(kept) == 2 * _MOST_FRAMES:
                kept, step = kept[::2], step * 2
    if len(kept) < _LEAST_FRAMES:
        raise InputError(
            f"{source}: calibration needs at least {_LEAST_FRAMES} frames, got {len(kept)}; a few "
            "dozen that look like what the camera sees are best"
        )
    rows = np.linspace(0, len(kept) - 1, min(len(kept), _MOST_FRAMES)).round().astype(int)
    return np.stack([kept[row] for row in rows])


def activation_ranges(
    encoder: onnx.ModelProto,
    frames: Frames,
    method: str,
    ops: Sequence[str],
    symmetric: bool,
    progress: Progress,
) -> Any:
    """The range of each tensor around the named operators, by ONNX Runtime's calibrators.

    Args:
        encoder: fp32.
        frames: as `calibration_frames` gives them.
        method: "MinMax", or "Percentile" (99.999 % of the values).
        ops: operators by type.
        symmetric: whether zero is the middle of each range.
        progress: told about each batch.
    Returns:
        ONNX Runtime's `TensorsData`.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    starts = range(0, len(frames), _BATCH)
    progress.start(f"Calibrating, {method.lower()}", len(starts))
    with tempfile.TemporaryDirectory(prefix="taidpt-") as folder:
        source = Path(folder) / "encoder.onnx"
        onnx.save(encoder, source)
        calibrator = create_calibrator(
            source,
            list(ops),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod[method],
            extra_options={"symmetric": symmetric},
        )
        for start in starts:
            calibrator.collect_data(
                _OneBatch(encoder.graph.input[0].name, frames[start : start + _BATCH])
            )
            progress.advance()
        return calibrator.compute_data()


class _OneBatch:
    """One batch as the data reader that ONNX Runtime's calibrators take."""

    def __init__(self, name: str, frames: Frames) -> None:
        self._batch: dict[str, Frames] | None = {name: frames}

    def get_next(self) -> dict[str, Frames] | None:
        batch, self._batch = self._batch, None
        return batch

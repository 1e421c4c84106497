"""What is asked of a precision or an engine: options, and where pictures come from."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from taidpt.export.precision.half import check_precision
from taidpt.runtime.backends.engine_files import FLAVOURS
from taidpt.runtime.bundle.bundle import MODEL_FILE
from taidpt.runtime.errors import InputError

__all__ = ["CPU", "EngineOptions", "EngineRequest", "variant_file"]

CPU = "cpu"  # no engine: an int8 graph for ONNX Runtime's CPU provider


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built.

    Attributes:
        precision: of the graph; the engine is strongly typed and follows it.
        batch: least, usual and largest number of frames.
        workspace: bytes of scratch memory; None takes half of the free memory, at most 4 GiB.
        flavour: "auto", "tensorrt" or "tensorrt-rtx"; "cpu" is int8 for ONNX Runtime.
        target: GPU architecture such as "sm_86", TensorRT-RTX only; None is this machine's GPU.
        dla: core of the deep learning accelerator, with the GPU for what it cannot run; or None.
        version_compatible, hardware_compatible: slower engines for later TensorRTs, other GPUs.
    """

    precision: str = "fp16"
    batch: tuple[int, int, int] = (1, 1, 8)
    workspace: int | None = None
    flavour: str = "auto"
    target: str | None = None
    dla: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if self.dla is not None and self.dla < 0:
            raise InputError(f"DLA core {self.dla}: expected 0, or 1 where there are two")
        least, usual, largest = self.batch
        if not 1 <= least <= usual <= largest:
            raise InputError(
                f"batch {least},{usual},{largest}: expected least,usual,largest in rising order"
            )
        if self.flavour not in ("auto", *FLAVOURS, CPU):
            raise InputError(
                f"engine flavour {self.flavour!r} is not one of auto, {', '.join(FLAVOURS)}, {CPU}"
            )
        if self.flavour == CPU and self.precision != "int8":
            raise InputError(
                f"--flavour {CPU} is for int8: other precisions gain nothing on a CPU, got "
                f"{self.precision}"
            )


@dataclass(frozen=True)
class EngineRequest:
    """A precision or an engine, and the pictures for it.

    Attributes:
        options: of the builder.
        calibrate: the user's pictures or video, for int8 and fp8.
        force: keep a graph that fails its parity check.
        labels: a JSON file of what pictures show; mAP is measured with it.
        images: further pictures for the gate, those of `labels` among them; None takes the labelled
            pictures from `calibrate`.
        max_map_drop: points of mAP that may be lost.
    """

    options: EngineOptions
    calibrate: Path | None = None
    force: bool = False
    labels: Path | None = None
    images: Path | None = None
    max_map_drop: float | None = None

    def __post_init__(self) -> None:
        if self.max_map_drop is not None and not self.max_map_drop >= 0:
            raise InputError(
                f"--max-map-drop {self.max_map_drop}: expected points of mAP, 0 or more"
            )
        if self.labels is not None and not (self.images or self.calibrate):
            raise InputError(f"--truth {self.labels}: where are its pictures? --images DIR")

    @property
    def gate_overlaps_calibration(self) -> bool:
        """Whether the gate's pictures overlap the calibration's, which flatters the result."""
        gate = self.images or (self.calibrate if self.labels else None)
        if gate is None or self.calibrate is None:
            return False
        one, other = gate.resolve(), self.calibrate.resolve()
        return one.is_relative_to(other) or other.is_relative_to(one)

    def command(self, bundle: Path) -> str:
        """The command that builds this request's engine on another machine."""
        parts = ["taidpt-export", str(bundle), "--engine", self.options.precision]
        defaults = EngineOptions()
        if self.options.batch != defaults.batch:
            parts += ["--batches", ",".join(map(str, self.options.batch))]
        if self.options.workspace is not None:
            parts += ["--workspace", str(self.options.workspace)]
        if self.options.flavour != defaults.flavour:
            parts += ["--flavour", self.options.flavour]
        for name in ("target", "dla"):
            if getattr(self.options, name) is not None:
                parts += [f"--{name}", str(getattr(self.options, name))]
        for name in ("version_compatible", "hardware_compatible"):
            if getattr(self.options, name):
                parts.append(f"--{name.replace('_', '-')}")
        if self.force:
            parts.append("--force")
        return shlex.join(parts)


def variant_file(precision: str) -> str:
    """File name of a precision's graph: `model.onnx` for fp32, else such as `model.fp16.onnx`."""
    return MODEL_FILE if precision == "fp32" else f"model.{precision}.onnx"

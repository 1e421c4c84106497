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
        batch: least, usual and largest batch.
        workspace: bytes of scratch memory; None takes half of what is free, 4 GiB at most.
        flavour: "auto", "tensorrt" or "tensorrt-rtx"; "cpu" is int8 for ONNX Runtime.
        target: "sm_86" and the like, TensorRT-RTX only; None is the GPU of this machine.
        dla: core of the deep learning accelerator, with the GPU for what it cannot do; or None.
        version_compatible, hardware_compatible: slower engines that outlive a TensorRT or GPU.
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
    """What is asked for.

    Attributes:
        options: precision, batch, workspace and the rest of the builder's.
        calibrate: the user's pictures or video, for int8 and fp8.
        force: keep a graph that fails its parity check.
        labels: what pictures show, a JSON file; with it mAP is measured.
        images: pictures for the gate, beside the stored ones; those of `labels` too, which are of
            `calibrate` when None.
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
            raise InputError(f"--labels {self.labels}: where are its pictures? --images DIR")

    @property
    def judges_itself(self) -> bool:
        """Whether the user's pictures that judge are those that ranges are measured on."""
        judges = self.images or (self.calibrate if self.labels else None)
        if judges is None or self.calibrate is None:
            return False
        one, other = judges.resolve(), self.calibrate.resolve()
        return one.is_relative_to(other) or other.is_relative_to(one)

    def command(self, bundle: Path) -> str:
        """The command that does the engine step of this request on another machine."""
        parts = ["taidpt-export", str(bundle), "--engine", self.options.precision]
        defaults = EngineOptions()
        if self.options.batch != defaults.batch:
            parts += ["--batch", ",".join(map(str, self.options.batch))]
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
    """A bundle's graph of a precision: `model.onnx` is fp32, `model.fp16.onnx` lies beside it."""
    return MODEL_FILE if precision == "fp32" else f"model.{precision}.onnx"

"""Choice of the backend that runs a bundle on this machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taidpt.runtime.backends import AUTO, DEVICES
from taidpt.runtime.backends.base import Backend, BackendOptions
from taidpt.runtime.backends.onnx_runtime import OnnxRuntimeBackend
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import BackendError, BundleError, InputError, MissingDependencyError

__all__ = ["Device", "open_backend"]

_NO_ENGINE = "the bundle has no such engine"


@dataclass(frozen=True)
class Device:
    """The device and backend that run a bundle.

    Attributes:
        name: "tensorrt", "tensorrt-rtx", "cuda", "cpu" or "ort-tensorrt".
        backend: library and version.
        passed_over: the devices that "auto" preferred and could not use: name → reason.
    """

    name: str
    backend: str
    passed_over: Mapping[str, str]

    def __str__(self) -> str:
        backend = re.sub(r"( \d+\.\d+)\.\d+(?=$|,)", r"\1", self.backend)
        return f"{self.name} ({backend})"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        passed_over = dict(self.passed_over)
        return {"name": self.name, "backend": self.backend, "passed_over": passed_over}


def open_backend(bundle: Bundle, options: BackendOptions) -> tuple[Backend, Device]:
    """Open the chosen device; "auto" takes the first of `AUTO` that works.

    Raises:
        InputError: there is no such device.
        BackendError, MissingDependencyError: the device cannot be used here.
        BundleError: the bundle's graph or engine differs from its manifest.
    """
    if options.providers is not None:
        return _described(OnnxRuntimeBackend(bundle, options), {})
    if options.device not in DEVICES:
        raise InputError(f"unknown device {options.device!r}, expected one of {', '.join(DEVICES)}")
    if options.device != "auto":
        return _described(_open(bundle, options, options.device), {})
    passed_over: dict[str, str] = {}
    for device in AUTO[:-1]:
        try:
            chosen = _described(_try(bundle, options, device), passed_over)
            break
        except (BackendError, MissingDependencyError) as error:
            passed_over[device] = str(error)
        except BundleError as error:
            # a damaged engine does not keep the graph from running; a graph is run on the CPU too
            if not device.startswith("tensorrt") or not bundle.is_current():
                raise
            passed_over[device] = str(error)
    else:
        chosen = _described(_open(bundle, options, AUTO[-1]), passed_over)
    _log(chosen[1])
    return chosen


def _try(bundle: Bundle, options: BackendOptions, device: str) -> Backend:
    """Open a device; a bundle without engines of TensorRT fails before its library is loaded."""
    if device.startswith("tensorrt"):
        if not any(name.endswith(".engine") for name in bundle.manifest.files):
            raise BackendError(_NO_ENGINE)
        from taidpt.runtime.backends.engine_files import read_engines

        engines, damaged = read_engines(bundle)
        if not damaged and all(engine.flavour != device for engine in engines):
            raise BackendError(_NO_ENGINE)
    return _open(bundle, options, device)


def _open(bundle: Bundle, options: BackendOptions, device: str) -> Backend:
    if device.startswith("tensorrt"):
        from taidpt.runtime.backends.tensorrt_engine import TensorRTBackend

        return TensorRTBackend(bundle, options, device)
    return OnnxRuntimeBackend(bundle, options, device)


def _described(backend: Backend, passed_over: Mapping[str, str]) -> tuple[Backend, Device]:
    return backend, Device(backend.device, backend.name, passed_over)


def _log(device: Device) -> None:
    """Log why better devices are not used; an engine that cannot be run is a warning."""
    unused_engines = {
        name: why
        for name, why in device.passed_over.items()
        if name.startswith("tensorrt") and why != _NO_ENGINE
    }
    if not unused_engines and "logging" not in sys.modules:
        return  # without `logging` nobody reads the line, and loading the module takes 5 ms
    import logging

    log = logging.getLogger("taidpt.runtime")
    for name, why in device.passed_over.items():
        level = logging.WARNING if name in unused_engines else logging.DEBUG
        log.log(level, "device auto: not %s: %s", name, why)

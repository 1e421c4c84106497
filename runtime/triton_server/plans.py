"""A bundle's TensorRT engines as the plans of one model, a file for each GPU architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.runtime.backends.engine_files import fastest_engines
from taidpt.runtime.backends.trusted_engines import read_trusted
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError

__all__ = ["Plans", "choose_plans"]

_DEFAULT = "model.plan"


@dataclass(frozen=True)
class Plans:
    """The plans of a model.

    Attributes:
        files: name of the plan → the engine in the bundle.
        config: the fields of config.pbtxt that choose among them.
        batch: frames in one run, at most.
    """

    files: Mapping[str, Path]
    config: Mapping[str, Any]
    batch: int


def choose_plans(bundle: Bundle, trust_engine: bool = False) -> Plans:
    """The fastest engine of each architecture.

    Triton takes the file of its GPU's compute capability, or else the default file: an engine that
    was built for several architectures.

    Raises:
        InputError: the bundle has no TensorRT engine of its graph, or the server would need a
            plugin library for it.
        BackendError: an engine was not built on this machine, and `trust_engine` is False.
        BundleError: an engine's key is damaged.
    """
    engines = fastest_engines(bundle, "tensorrt")
    if not engines:
        raise InputError(
            f"{bundle.path}: has no TensorRT engine of its graph; build one on a machine with the "
            f"server's GPU and TensorRT: taidpt-export {bundle.path} --engine fp16"
        )
    files: dict[str, Path] = {}
    names: list[dict[str, str]] = []
    for architecture, engine in engines.items():
        path = bundle.file(engine.name)
        if engine.has_plugins:
            raise InputError(
                f"{path}: needs a plugin library, which the server has not; build it again without "
                "TAIDPT_PLUGIN"
            )
        read_trusted(path, trust_engine)
        name = _DEFAULT if engine.is_hardware_compatible else f"{architecture}.plan"
        if name != _DEFAULT:
            names.append({"key": _capability(architecture), "value": name})
        files.setdefault(name, path)
    default = {"default_model_filename": _DEFAULT} if _DEFAULT in files else {}
    batch = min(engine.largest_batch for engine in engines.values())
    return Plans(files, {**default, "cc_model_filenames": names}, batch)


def _capability(architecture: str) -> str:
    """ "sm_87" → "8.7", "sm_120" → "12.0"."""
    digits = architecture.removeprefix("sm_")
    return f"{digits[:-1]}.{digits[-1]}"

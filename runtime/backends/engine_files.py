"""The engines of a bundle, and which of them may run on this machine.

An engine is valid for one graph, one TensorRT version and one GPU architecture. A JSON file beside
it, its key, records these, and the engine's name holds a fingerprint of the key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taidpt.runtime.bundle.bundle import MODEL_FILE, Bundle
from taidpt.runtime.errors import BackendError, BundleError
from taidpt.runtime.storage.atomic import sha256_of
from taidpt.runtime.storage.json_reader import JsonReader, parse_object
from taidpt.runtime.storage.regular_file import read_regular

__all__ = [
    "ENGINES",
    "FLAVOURS",
    "PLUGIN_KEY",
    "TITLES",
    "EngineFile",
    "Machine",
    "choose_engine",
    "fastest_engines",
    "fingerprint",
    "list_engines",
    "read_engines",
]

ENGINES = "engines"
# flavour → Python package
FLAVOURS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
PLUGIN_KEY = "plugin_sha256"  # hash of the plugin library that an engine was built with
# Fastest first: a user who built a lower precision wants to run it.
_PREFERENCE = ("fp8", "int8", "fp16", "bf16", "fp32")
_LEAST_COMPATIBLE_SM = 80  # hardware-compatible engines run on Ampere and later


@dataclass(frozen=True)
class Machine:
    """This machine: `architecture` is like "sm_87", or None without a GPU."""

    flavour: str
    version: str
    architecture: str | None


@dataclass(frozen=True)
class EngineFile:
    """One engine: its file in the bundle and its key."""

    name: str
    key: JsonReader

    @property
    def flavour(self) -> str:
        """ "tensorrt" or "tensorrt-rtx"."""
        return self.key.choice("flavour", tuple(FLAVOURS))

    @property
    def precision(self) -> str:
        """Precision of its graph, as in "fp16"."""
        return self.key.string("precision")

    @property
    def brings_host_code(self) -> bool:
        """Whether it is version-compatible: such an engine contains code for the CPU as well."""
        return self._flag("version_compatible")

    @property
    def has_plugins(self) -> bool:
        """Whether it was built with a plugin library, and needs it to run."""
        return PLUGIN_KEY in self.key

    @property
    def is_hardware_compatible(self) -> bool:
        """Whether it runs on other GPUs than the one that built it."""
        return self._flag("hardware_compatible")

    @property
    def largest_batch(self) -> int:
        """Frames in one run, at most.

        Raises:
            BundleError: the key names none.
        """
        sizes = self.key.integers("batch")
        if len(sizes) != 3 or sizes[2] < 1:
            self.key.fail("batch", "[least, usual, largest]")
        return sizes[2]

    def faults(self, bundle: Bundle, machine: Machine) -> tuple[str, ...]:
        """The reasons why it may not run here; none if it may."""
        checks = (self._graph_fault(bundle), self._gpu_fault(machine), self._version_fault(machine))
        return tuple(fault for fault in checks if fault)

    def is_stale(self, bundle: Bundle) -> bool:
        """Whether it was built from another graph than the bundle's."""
        return bool(self._graph_fault(bundle))

    def _graph_fault(self, bundle: Bundle) -> str:
        variant = f"model.{self.precision}.onnx"
        graph = variant if variant in bundle.manifest.files else MODEL_FILE
        same = _graph_sha256(bundle, graph) == self.key.string("graph_sha256")
        return "" if same else "the graph has changed since"

    def _gpu_fault(self, machine: Machine) -> str:
        built, here = self.key.string("architecture"), machine.architecture
        if built == here or (self.is_hardware_compatible and _sm(here) >= _LEAST_COMPATIBLE_SM):
            return ""
        return f"built for {built}, this machine has {here or 'no GPU'}"

    def _version_fault(self, machine: Machine) -> str:
        built, here = self.key.string("version"), machine.version
        if built == here:
            return ""
        if self._flag("version_compatible") and _is_later(here, built):
            return ""
        return f"built by {TITLES[self.flavour]} {built}, installed is {here or 'none'}"

    def _flag(self, name: str) -> bool:
        return name in self.key and self.key.boolean(name)


def fingerprint(key: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of the hash of a key."""
    text = json.dumps(dict(key), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_engines(bundle: Bundle) -> tuple[list[EngineFile], dict[str, BundleError]]:
    """The engines of a bundle, and the faults of those with a damaged key, by name."""
    engines: list[EngineFile] = []
    damaged: dict[str, BundleError] = {}
    for name in bundle.manifest.files:
        if name.startswith(f"{ENGINES}/") and name.endswith(".engine"):
            try:
                engines.append(_read(bundle, name))
            except BundleError as error:
                damaged[name] = error
    return engines, damaged


def list_engines(bundle: Bundle, flavour: str | None = None) -> list[EngineFile]:
    """The engines of a bundle, of one flavour or all.

    Raises:
        BundleError: an engine has no key, or a key that is damaged or does not match its name.
    """
    engines, damaged = read_engines(bundle)
    for error in damaged.values():
        raise error
    return [engine for engine in engines if flavour in (None, engine.flavour)]


def fastest_engines(bundle: Bundle, flavour: str) -> dict[str, EngineFile]:
    """The fastest engine of each GPU architecture, of those that were built from this graph.

    Raises:
        BundleError: an engine has a damaged key.
    """
    found: dict[str, EngineFile] = {}
    for engine in sorted(list_engines(bundle, flavour), key=_slowness, reverse=True):
        if not engine.is_stale(bundle):
            found[engine.key.string("architecture")] = engine
    return found


def _slowness(engine: EngineFile) -> int:
    return _PREFERENCE.index(engine.precision)


def choose_engine(bundle: Bundle, machine: Machine, name: str | None = None) -> EngineFile:
    """The engine of this flavour that may run here; the fastest of several.

    Args:
        bundle: the bundle of the engines.
        machine: this machine.
        name: of the engine to take; None chooses.
    Raises:
        BackendError: there is none, or all are stale or damaged; the message says how to build
            one.
    """
    every, damaged = read_engines(bundle)
    engines = [
        engine
        for engine in every
        if engine.flavour == machine.flavour and name in (None, engine.name)
    ]
    advice = f"build one here: taidpt-export {bundle.path} --engine fp16"
    if machine.flavour != "tensorrt":
        advice += f" --flavour {machine.flavour}"
    faults = {engine.name: engine.faults(bundle, machine) for engine in engines}
    fresh = [engine for engine in engines if not faults[engine.name]]
    if fresh:
        return min(fresh, key=_slowness)
    reasons = [f"{name} is stale: {', '.join(why)}" for name, why in faults.items()]
    reasons += [str(error) for key, error in damaged.items() if name in (None, key)]
    why = "; ".join(reasons) or f"the bundle has no {TITLES[machine.flavour]} engine"
    raise BackendError(f"{bundle.path}: {why}; {advice}")


def _read(bundle: Bundle, name: str) -> EngineFile:
    path = bundle.file(name.removesuffix(".engine") + ".json")
    try:
        data = read_regular(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
    key = JsonReader(parse_object(data, str(path)), str(path))
    if fingerprint(key.document) not in name:
        raise BundleError(f"{path}: describes another engine than {name}; build the engine again")
    key.choice("flavour", tuple(FLAVOURS))
    key.choice("precision", _PREFERENCE)
    for required in ("version", "architecture", "graph_sha256"):
        key.string(required)
    for flag in ("version_compatible", "hardware_compatible"):
        if flag in key:
            key.boolean(flag)
    return EngineFile(name, key)


def _graph_sha256(bundle: Bundle, graph: str) -> str:
    """The hash in the manifest; of a graph with weights in a second file, the hash of both."""
    beside = f"{graph}.data"
    if beside not in bundle.manifest.files:
        return bundle.manifest.files[graph].sha256
    return sha256_of(bundle.file(graph), bundle.file(beside))


def _sm(architecture: str | None) -> int:
    digits = (architecture or "").removeprefix("sm_")
    return int(digits) if digits.isdigit() else 0


def _is_later(here: str, built: str) -> bool:
    """Whether `here` is the same or a later version of the same major version."""
    try:
        numbers = [tuple(int(part) for part in text.split(".")) for text in (here, built)]
    except ValueError:
        return False
    return numbers[0][0] == numbers[1][0] and numbers[0] >= numbers[1]

"""Engines in a bundle: built, run once, stored by name; stale ones are replaced."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.export.engines.builder import (
    BuiltEngine,
    build_engine,
    engine_key,
    installed_version,
    require_flavour,
)
from taidpt.export.engines.outputs import engine_outputs
from taidpt.export.parity.centred_cosine import ParityReport, compare
from taidpt.export.parity.stored_answers import EXPECTATIONS_FILE, StoredAnswers
from taidpt.export.precision.half import bound_of
from taidpt.export.precision.request import EngineOptions, EngineRequest
from taidpt.export.precision.variant import Variant, add_precision
from taidpt.progress import Progress
from taidpt.runtime.backends.engine_files import ENGINES, fingerprint, list_engines
from taidpt.runtime.backends.gpu import gpu_architecture
from taidpt.runtime.backends.trusted_engines import is_trusted, trust
from taidpt.runtime.bundle.bundle import Bundle, BundleWriter
from taidpt.runtime.errors import (
    BackendError,
    EngineNotBuiltError,
    MissingDependencyError,
    ParityError,
)
from taidpt.runtime.storage.atomic import write_atomically
from taidpt.runtime.storage.json_reader import JsonReader, parse_object
from taidpt.runtime.storage.user_folders import state_folder

__all__ = ["EngineResult", "add_engine", "engine_of", "timing_cache_path"]


@dataclass(frozen=True)
class EngineResult:
    """An engine in its bundle.

    Attributes:
        path: where it is.
        key: the graph, options, versions and GPU that it was built for.
        fresh: False when it was in the bundle already.
        verified: whether it was run and compared with PyTorch's outputs.
        reason: why it was not run.
    """

    path: Path
    key: Mapping[str, Any]
    fresh: bool
    verified: bool = False
    reason: str = "see `taidpt verify`"


def add_engine(path: Path, request: EngineRequest, progress: Progress) -> EngineResult:
    """Give a bundle an engine, and first the graph of its precision.

    Raises:
        InputError: calibration is missing or too small.
        ParityError: the graph or the engine is out of bounds, unless forced.
        EngineNotBuiltError: no TensorRT here, or its builder refused; the bundle has everything
            portable.
    """
    return engine_of(add_precision(path, request, progress), request, progress)


def engine_of(variant: Variant, request: EngineRequest, progress: Progress) -> EngineResult:
    """Build an engine from the graph that `add_precision` gave.

    Raises:
        EngineNotBuiltError: as above.
    """
    bundle = variant.bundle
    graph = bundle.file(variant.file)
    try:
        flavour = _possible_flavour(request.options)
    except EngineNotBuiltError as error:
        raise EngineNotBuiltError(
            f"{error}, so no engine was built; {bundle.path} has everything else: on the device "
            f"run `{request.command(bundle.path)}`"
        ) from None
    key = engine_key(graph, request.options, flavour, installed_version(flavour))
    name = f"{ENGINES}/{flavour}-{key['precision']}-{fingerprint(key)}.engine"
    existing = _existing(bundle, name, key, request.force)
    return existing or _store(bundle, _build(bundle, graph, request, progress), request.force)


def _possible_flavour(options: EngineOptions) -> str:
    """The installed builder, which has a GPU to build for."""
    flavour = require_flavour(options)
    if options.target is None and gpu_architecture() is None:
        other = " (or name one: --target sm_89)" if flavour == "tensorrt-rtx" else ""
        raise EngineNotBuiltError(f"there is no GPU here to build for{other}")
    return flavour


def _existing(
    bundle: Bundle, name: str, key: Mapping[str, Any], force: bool
) -> EngineResult | None:
    """The same engine, if this machine built and checked it. Engines of others are built again.

    Raises:
        ParityError: it failed its check and was kept because of --force.
    """
    report = name.removesuffix(".engine") + ".parity.json"
    path = bundle.path / name
    if not {name, report} <= set(bundle.manifest.files) or not is_trusted(path.read_bytes()):
        return None
    reader = JsonReader(parse_object(bundle.file(report).read_bytes(), report), report)
    notes = reader.child("notes")
    if not reader.boolean("passed") and not force:
        raise ParityError(
            f"{path} failed its check when it was built and was kept because of --force"
        )
    return EngineResult(path, key, False, notes.boolean("verified"), notes.string("reason"))


def _build(bundle: Bundle, graph: Path, request: EngineRequest, progress: Progress) -> BuiltEngine:
    folder = bundle.path.parent
    log = folder / f"{bundle.path.name}.{request.options.precision}.log"
    cache = timing_cache_path()
    timings = cache.read_bytes() if cache.is_file() else b""
    try:
        built = build_engine(graph, request.options, log, progress, timings)
    except EngineNotBuiltError as error:
        raise EngineNotBuiltError(f"{error} (the whole log: {log})") from None
    if built.timing_cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache, built.timing_cache)
    return built


def timing_cache_path() -> Path:
    """The file of the builder's timings, shared by all builds on this machine."""
    return state_folder() / "timing.cache"


def _store(bundle: Bundle, built: BuiltEngine, force: bool) -> EngineResult:
    """Run the engine where that is possible, and store it only if it passes.

    It replaces engines of the same flavour and precision from other graphs, versions or options.

    Raises:
        ParityError: its outputs are out of bounds; the bundle is as before.
    """
    name = f"{ENGINES}/{built.name}.engine"
    stale = f"{ENGINES}/{built.key['flavour']}-{built.key['precision']}-"
    with BundleWriter(bundle.path, base=bundle.path) as writer:
        for old in bundle.manifest.files:
            if old.startswith(stale):
                writer.remove(old)
        writer.write(name, built.data)
        writer.write(f"{ENGINES}/{built.name}.json", json.dumps(dict(built.key), indent=1).encode())
        writer.stage()
        report = _checked(Bundle.load(writer.folder), name)
        if not force:
            report.require()
        writer.write(f"{ENGINES}/{built.name}.parity.json", report.to_bytes())
        trust(writer.folder / name)  # before others can see it
        writer.commit()
    verified = bool(report.notes["verified"])
    return EngineResult(bundle.path / name, built.key, True, verified, report.notes["reason"])


def _checked(bundle: Bundle, name: str) -> ParityReport:
    """The engine against PyTorch's stored outputs; unverified where it cannot run here."""
    expected = StoredAnswers.load(bundle.file(EXPECTATIONS_FILE))
    engine = next(engine for engine in list_engines(bundle) if engine.name == name)
    sides = expected.sides(name)
    try:
        found = engine_outputs(bundle, engine, expected.pixels, trust_engine=True)
    except (BackendError, MissingDependencyError) as error:
        return ParityReport.not_run(sides, {"reason": f"not run here: {error}"})
    report = compare(expected.outputs, found, sides, bound_of(engine.precision))
    return dataclasses.replace(report, notes={"verified": True, "reason": ""})

"""Engines in a bundle: named by all they depend on, stale ones replaced."""

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
from taidpt.export.parity.centred_cosine import ParityReport, Sides, compare
from taidpt.export.parity.stored_answers import EXPECTATIONS_FILE, Expectations
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

__all__ = ["EngineResult", "add_engine", "engine_of", "timing_cache_path"]


@dataclass(frozen=True)
class EngineResult:
    """An engine in its bundle.

    Attributes:
        path: where it is.
        key: what it was built of and for.
        fresh: False when it stood there already.
        verified: whether it was run, and gave PyTorch's answers (or was forced).
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
        ParityError: the graph would not give PyTorch's tags (unless forced).
        EngineNotBuiltError: no TensorRT here, or its builder refused; the bundle holds
            everything portable then.
    """
    return engine_of(add_precision(path, request, progress), request, progress)


def engine_of(variant: Variant, request: EngineRequest, progress: Progress) -> EngineResult:
    """Build an engine from a bundle's graph, which `add_precision` gave.

    Raises:
        EngineNotBuiltError: as above.
    """
    bundle = variant.bundle
    graph = bundle.file(variant.file)
    try:
        flavour = _possible_flavour(request.options)
    except EngineNotBuiltError as error:
        raise EngineNotBuiltError(
            f"{error}, so no engine was built; {bundle.path} holds everything else: on the device "
            f"run `{request.command(bundle.path)}`"
        ) from None
    key = engine_key(graph, request.options, flavour, installed_version(flavour))
    name = f"{ENGINES}/{flavour}-{key['precision']}-{fingerprint(key)}.engine"
    there = _there_already(bundle, name, key, request.force)
    return there or _store(bundle, _build(bundle, graph, request, progress), request.force)


def _possible_flavour(options: EngineOptions) -> str:
    """The builder that is here and has a GPU to build for."""
    flavour = require_flavour(options)
    if options.target is None and gpu_architecture() is None:
        other = " (or name one: --target sm_89)" if flavour == "tensorrt-rtx" else ""
        raise EngineNotBuiltError(f"there is no GPU here to build for{other}")
    return flavour


def _there_already(
    bundle: Bundle, name: str, key: Mapping[str, Any], force: bool
) -> EngineResult | None:
    """The same engine, checked and trusted already; what a stranger built is built here again.

    Raises:
        ParityError: it failed its check and is there because of --force.
    """
    report = name.removesuffix(".engine") + ".parity.json"
    path = bundle.path / name
    if not {name, report} <= set(bundle.manifest.files) or not is_trusted(path.read_bytes()):
        return None
    reader = JsonReader(parse_object(bundle.file(report).read_bytes(), report), report)
    notes = reader.child("notes")
    if not reader.boolean("passed") and not force:
        raise ParityError(
            f"{path} failed its check when it was built and is there because of --force"
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
    """Where tactics' timings are kept from build to build, outside every bundle."""
    from taidpt.runtime.backends.trusted_engines import record_path

    return record_path().parent / "timing.cache"


def _store(bundle: Bundle, built: BuiltEngine, force: bool) -> EngineResult:
    """Run the engine where that is possible, and put it into the bundle only if it passes.

    Engines of an earlier graph, TensorRT or setting of the same precision make room.

    Raises:
        ParityError: it does not give PyTorch's answers; the bundle is as before.
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
        trust(writer.folder / name)  # before it can be seen: an engine in place may be run
        writer.commit()
    verified = bool(report.notes["verified"])
    return EngineResult(bundle.path / name, built.key, True, verified, report.notes["reason"])


def _checked(bundle: Bundle, name: str) -> ParityReport:
    """The engine against PyTorch's stored answers; unverified where it cannot run here."""
    expected = Expectations.load(bundle.file(EXPECTATIONS_FILE))
    engine = next(engine for engine in list_engines(bundle) if engine.name == name)
    names = tuple(picture.name for picture in expected.pictures)
    sides = Sides("PyTorch, stored in the bundle", name, names)
    pixels = [picture.pixels for picture in expected.pictures]
    try:
        found = engine_outputs(bundle, engine, pixels, trust_engine=True)
    except (BackendError, MissingDependencyError) as error:
        notes = {"verified": False, "reason": f"not run here: {error}"}
        return ParityReport(sides.reference, sides.candidate, names, (), 0.0, (), notes)
    report = compare(expected.outputs, found, sides, bound_of(engine.precision))
    return dataclasses.replace(report, notes={"verified": True, "reason": ""})

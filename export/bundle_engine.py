"""Engines in a bundle: named by all they depend on, stale ones replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.export.engine import (
    BuiltEngine,
    build_engine,
    engine_key,
    find_flavour,
    installed_version,
)
from taidpt.export.variants import EngineRequest, Variant, add_precision
from taidpt.progress import Progress
from taidpt.runtime.backends.engine_files import ENGINES, fingerprint
from taidpt.runtime.bundle import Bundle, BundleWriter
from taidpt.runtime.errors import EngineNotBuiltError
from taidpt.runtime.files import write_atomically
from taidpt.runtime.trust import trust

__all__ = ["EngineResult", "add_engine", "engine_of", "timing_cache_path"]


@dataclass(frozen=True)
class EngineResult:
    """An engine in its bundle; `fresh` is False when it stood there already."""

    path: Path
    key: Mapping[str, Any]
    fresh: bool


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
    flavour = find_flavour(request.options.flavour)
    if flavour is None:
        wanted = "TensorRT" if request.options.flavour == "auto" else request.options.flavour
        raise EngineNotBuiltError(
            f"{wanted} is not installed here, so no engine was built; {bundle.path} holds "
            f"everything else: on the device run `{request.command(bundle.path)}`"
        )
    key = engine_key(graph, request.options, flavour, installed_version(flavour))
    name = f"{ENGINES}/{flavour}-{key['precision']}-{fingerprint(key)}.engine"
    if name in bundle.manifest.files:
        return EngineResult(bundle.path / name, key, fresh=False)
    return _store(bundle, _build(bundle, graph, request, progress))


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
    from taidpt.runtime.trust import record_path

    return record_path().parent / "timing.cache"


def _store(bundle: Bundle, built: BuiltEngine) -> EngineResult:
    """Engines of an earlier graph, TensorRT or setting of the same precision make room."""
    stale = f"{ENGINES}/{built.key['flavour']}-{built.key['precision']}-"
    name = f"{ENGINES}/{built.name}.engine"
    with BundleWriter(bundle.path, base=bundle.path) as writer:
        for old in bundle.manifest.files:
            if old.startswith(stale):
                writer.path(old)  # unlinks what was taken over
        writer.write(name, built.data)
        writer.write(f"{ENGINES}/{built.name}.json", json.dumps(dict(built.key), indent=1).encode())
        writer.commit(bundle.manifest)
    trust(bundle.path / name)
    return EngineResult(bundle.path / name, built.key, fresh=True)

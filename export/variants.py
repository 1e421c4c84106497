"""A bundle's graph in another precision, and engines of it: the second step, which needs no torch.

On the machine that has PyTorch this adds the portable graph; on the device, or wherever TensorRT
is, it builds the engine from that graph. Either may run first, or both in one place.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taidpt.export.bundle_source import encoder_of, require_onnx
from taidpt.export.candidate import graph_outputs
from taidpt.export.engine import (
    BuiltEngine,
    EngineOptions,
    build_engine,
    engine_key,
    find_flavour,
    installed_version,
)
from taidpt.export.expectations import EXPECTATIONS_FILE, Expectations
from taidpt.export.graph_io import save_graph
from taidpt.export.parity import GATED, ParityReport, Sides, compare
from taidpt.export.pictures import frame_maker
from taidpt.export.precision import QUANTISED, RUNNABLE_ON_CPU, bound_of, to_half
from taidpt.progress import Progress
from taidpt.runtime.backends.engine_files import ENGINES, fingerprint
from taidpt.runtime.bundle import MODEL_FILE, Bundle, BundleWriter
from taidpt.runtime.errors import EngineNotBuiltError, InputError
from taidpt.runtime.files import write_atomically
from taidpt.runtime.trust import trust

if TYPE_CHECKING:
    import onnx

__all__ = ["EngineRequest", "EngineResult", "add_engine", "add_precision", "variant_file"]


@dataclass(frozen=True)
class EngineRequest:
    """What is asked for.

    Attributes:
        options: precision, batch, workspace and the rest of the builder's.
        calibrate: the user's pictures or video, for int8 and fp8.
        force: keep a graph that fails its parity check.
    """

    options: EngineOptions
    calibrate: Path | None = None
    force: bool = False

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
        if self.options.dla is not None:
            parts += ["--dla", str(self.options.dla)]
        for name in ("version_compatible", "hardware_compatible"):
            if getattr(self.options, name):
                parts.append(f"--{name.replace('_', '-')}")
        return shlex.join(parts)


@dataclass(frozen=True)
class EngineResult:
    """An engine in its bundle; `fresh` is False when it stood there already."""

    path: Path
    key: Mapping[str, Any]
    fresh: bool


def variant_file(bundle: Bundle, precision: str) -> str:
    """The bundle's graph of a precision: `model.onnx` itself, or `model.fp16.onnx` beside it."""
    own = bundle.manifest.provenance.get("precision", "fp32")
    return MODEL_FILE if precision == own else f"model.{precision}.onnx"


def add_engine(path: Path, request: EngineRequest, progress: Progress) -> EngineResult:
    """Give a bundle an engine, and first the graph of its precision.

    Raises:
        InputError: calibration is missing or too small.
        ParityError: the graph would not give PyTorch's tags (unless forced).
        EngineNotBuiltError: no TensorRT here, or its builder refused; the bundle holds
            everything portable then.
    """
    bundle = add_precision(path, request, progress)
    graph = bundle.file(variant_file(bundle, request.options.precision))
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


def add_precision(path: Path, request: EngineRequest, progress: Progress) -> Bundle:
    """The bundle with a graph of the precision in it, checked as far as this machine can.

    Raises:
        BundleError, InputError: the bundle or the calibration cannot be used.
        ParityError: below the bound, unless forced; nothing was changed then.
    """
    bundle = Bundle.load(path)
    precision = request.options.precision
    name = variant_file(bundle, precision)
    if name in bundle.manifest.files and _is_current(bundle, precision):
        return bundle
    require_onnx()
    progress.start(f"Converting to {precision}", 1)
    graph, notes = _convert(bundle, request)
    progress.advance()
    with BundleWriter(bundle.path, base=bundle.path) as writer:
        save_graph(graph, writer.path(name))
        report = _check(bundle, writer.folder / name, precision, notes)
        if not request.force:
            report.require()
        writer.write(f"parity.{precision}.json", report.to_bytes())
        writer.commit(bundle.manifest)
    return Bundle.load(path)


def _is_current(bundle: Bundle, precision: str) -> bool:
    """Whether the variant was made of the graph that the bundle holds now."""
    own = bundle.manifest.provenance.get("precision", "fp32")
    if precision == own:
        return True
    name = f"parity.{precision}.json"
    if name not in bundle.manifest.files:
        return False
    notes = json.loads(bundle.file(name).read_text("utf-8")).get("notes", {})
    return bool(notes.get("graph_sha256") == bundle.manifest.files[MODEL_FILE].sha256)


def _convert(bundle: Bundle, request: EngineRequest) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Encoder alone → converted → head again, and what there is to say about it."""
    own = bundle.manifest.provenance.get("precision", "fp32")
    if own != "fp32":
        raise InputError(
            f"{bundle.path}: its graph is {own} already; other precisions are made from an fp32 "
            "bundle"
        )
    precision = request.options.precision
    notes: dict[str, Any] = {"graph_sha256": bundle.manifest.files[MODEL_FILE].sha256}
    encoder = encoder_of(bundle)
    if precision not in QUANTISED:
        return with_head(bundle, to_half(encoder, precision)), notes
    low, kept = _quantise(bundle, encoder, request)
    return with_head(bundle, low), {**notes, "layers_in_fp32": list(kept)}


def with_head(bundle: Bundle, encoder: onnx.ModelProto) -> onnx.ModelProto:
    """An encoder with the bundle's own head."""
    from taidpt.export.head_graph import append_head

    manifest = bundle.manifest
    graph = manifest.graph
    return append_head(encoder, bundle.bank, manifest.scoring, graph.bank, graph.top_k)


def _quantise(
    bundle: Bundle, encoder: onnx.ModelProto, request: EngineRequest
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    from taidpt.export.quantise import Quantiser, calibration_frames, quantise_until

    precision = request.options.precision
    if request.calibrate is None:
        raise InputError(
            f"{precision} needs pictures or a video like those it will see: --calibrate PATH"
        )
    spec = bundle.manifest.input
    frames = calibration_frames(request.calibrate, frame_maker(spec))
    quantiser = Quantiser(encoder, frames, precision)
    if precision not in RUNNABLE_ON_CPU:
        return quantiser.quantise(), ()
    expected = Expectations.load(bundle.file(EXPECTATIONS_FILE))
    pixels = [picture.pixels for picture in expected.pictures]

    def judge(candidate: onnx.ModelProto) -> float:
        found = graph_outputs(with_head(bundle, candidate), spec, pixels, bundle.bank)
        sides = Sides("PyTorch", precision, tuple(p.name for p in expected.pictures))
        report = compare(expected.outputs, found, sides)
        return min(report.head(name).minimum for name in GATED)

    done = quantise_until(quantiser, judge, bound_of(precision))
    return done.model, done.kept


def _check(bundle: Bundle, graph: Path, precision: str, notes: Mapping[str, Any]) -> ParityReport:
    """The graph against PyTorch's stored answers; "not run here" where nothing can run it."""
    import onnxruntime

    expected = Expectations.load(bundle.file(EXPECTATIONS_FILE))
    names = tuple(picture.name for picture in expected.pictures)
    where = f"onnxruntime {onnxruntime.__version__} (CPUExecutionProvider), {precision}"
    sides = Sides("PyTorch, stored in the bundle", where, names)
    if precision not in RUNNABLE_ON_CPU:
        notes = {**notes, "verified": False, "reason": "not run here: needs TensorRT"}
        return ParityReport(sides.reference, sides.candidate, names, (), 0.0, (), notes)
    pixels = [picture.pixels for picture in expected.pictures]
    found = graph_outputs(graph, bundle.manifest.input, pixels, bundle.bank)
    report = compare(expected.outputs, found, sides, bound_of(precision))
    return dataclasses.replace(report, notes={**notes, "verified": True})

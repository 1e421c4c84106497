"""A bundle's graph in another precision: made without torch, checked before it is written.

On the machine that has PyTorch this adds the graph; on the device, or wherever TensorRT is, the
engine is built from it. Either may run first, or both in one place. The steps, a module each:
request → frames (`activation_ranges`) → gate (`gate`) → graph (`conversion`) → judge (`gate`) →
store (here, and `cpu_bundle`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.export.graph.from_bundle import fp32_bundle, require_onnx
from taidpt.export.graph.onnx_files import save_graph
from taidpt.export.precision.activation_ranges import Frames, requested_frames
from taidpt.export.precision.conversion import convert
from taidpt.export.precision.gate import gate_for
from taidpt.export.precision.half import QUANTISED
from taidpt.export.precision.request import EngineRequest, variant_file
from taidpt.progress import Progress
from taidpt.runtime.bundle.bundle import MODEL_FILE, Bundle, BundleWriter
from taidpt.runtime.errors import BundleError, ParityError
from taidpt.runtime.storage.atomic import sha256_of
from taidpt.runtime.storage.json_reader import parse_object

__all__ = ["Variant", "add_precision"]


@dataclass(frozen=True)
class Variant:
    """A bundle with the graph of a precision in it.

    Attributes:
        bundle: as it is now.
        file: the graph's name in it.
        parity: the JSON of its parity report; empty for the bundle's own graph.
        fresh: whether it was made now.
    """

    bundle: Bundle
    file: str
    parity: dict[str, Any]
    fresh: bool


def add_precision(path: Path, request: EngineRequest, progress: Progress) -> Variant:
    """Give the bundle a graph of the precision, checked as far as this machine can.

    A graph that was made of the same fp32 graph, frames and labels is kept.

    Raises:
        BundleError, InputError: the bundle or the calibration cannot be used.
        ParityError: below the bound, unless forced; nothing was changed.
    """
    bundle = fp32_bundle(path)
    precision = request.options.precision
    name, report_name = variant_file(precision), f"parity.{precision}.json"
    if name == MODEL_FILE:
        return Variant(bundle, name, {}, fresh=False)
    stored = _stored_report(bundle, name, report_name)
    needs_frames = precision in QUANTISED and (stored is None or request.calibrate is not None)
    frames = requested_frames(bundle, request) if needs_frames else None
    gate = gate_for(bundle, request)
    origin = {**_origin(bundle, frames, request), **gate.origin}
    if stored is not None and origin.items() <= stored.get("notes", {}).items():
        if not stored["passed"] and not request.force:
            raise ParityError(
                f"{bundle.path / name} failed its check when it was made and is there because of "
                "--force; give --force again to build an engine of it"
            )
        return Variant(bundle, name, stored, fresh=False)
    require_onnx()
    graph, notes = convert(bundle, frames, gate, progress)
    with BundleWriter(bundle.path, base=bundle.path) as writer:
        save_graph(graph, writer.path(name))
        report = gate.judge(writer.folder / name, {**origin, **notes}, request.force)
        writer.write(report_name, report.to_bytes())
        if writer.base.files[MODEL_FILE] != bundle.manifest.files[MODEL_FILE]:
            raise BundleError(f"{path}: was exported again meanwhile; run this command again")
        writer.commit()
    return Variant(Bundle.load(path), name, report.to_json(), fresh=True)


def _origin(bundle: Bundle, frames: Frames | None, request: EngineRequest) -> dict[str, Any]:
    """What a graph is made of, to tell whether an existing one is the same."""
    origin: dict[str, Any] = {"graph_sha256": bundle.manifest.files[MODEL_FILE].sha256}
    if frames is not None:
        origin["calibration_sha256"] = hashlib.sha256(frames.tobytes()).hexdigest()
        origin["calibration_frames"] = len(frames)
    if request.max_map_drop is not None:
        origin["max_map_drop"] = request.max_map_drop
    if request.labels is not None:  # without them no mAP was measured
        origin["labels_sha256"] = sha256_of(request.labels)
    return origin


def _stored_report(bundle: Bundle, name: str, report_name: str) -> dict[str, Any] | None:
    """The parity report of a precision's graph, where both are in the bundle."""
    if not {name, report_name} <= set(bundle.manifest.files):
        return None
    path = bundle.file(report_name)
    return {"passed": False, **parse_object(path.read_bytes(), str(path))}

"""int8 for ONNX Runtime's CPU provider: another bundle, whose own graph is the quantised one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from taidpt.export.graph.from_bundle import fp32_bundle, require_onnx
from taidpt.export.graph.onnx_files import save_graph
from taidpt.export.parity.centred_cosine import ParityReport
from taidpt.export.parity.stored_answers import EXPECTATIONS_FILE
from taidpt.export.precision.activation_ranges import requested_frames
from taidpt.export.precision.conversion import convert
from taidpt.export.precision.gate import gate_for
from taidpt.export.precision.request import EngineRequest
from taidpt.progress import Progress
from taidpt.runtime.bundle.bundle import BANK_FILE, MODEL_FILE, PARITY_FILE, BundleWriter

__all__ = ["write_cpu_bundle"]


def write_cpu_bundle(
    path: Path, out: Path, request: EngineRequest, progress: Progress
) -> ParityReport:
    """Write a bundle of the same tags and thresholds that runs in int8 on a CPU.

    Args:
        path: the fp32 bundle.
        out: the new bundle's folder.
        request: its calibration pictures and its gate.
        progress: told about each stage.
    Raises:
        InputError, BundleError: the bundle or the calibration cannot be used.
        ParityError: below the bounds, unless forced; nothing was written.
    """
    require_onnx()
    bundle = fp32_bundle(path)
    frames = requested_frames(bundle, request)
    gate = gate_for(bundle, request)
    graph, notes = convert(bundle, frames, gate, progress, for_cpu=True)
    notes["calibration_frames"] = len(frames)
    with BundleWriter(out) as writer:
        save_graph(graph, writer.path(MODEL_FILE))
        report = gate.judge(writer.folder / MODEL_FILE, notes, request.force)
        for name in (BANK_FILE, EXPECTATIONS_FILE):
            writer.write(name, bundle.file(name).read_bytes())
        writer.write(PARITY_FILE, report.to_bytes())
        opset = next(entry.version for entry in graph.opset_import if entry.domain == "")
        manifest = bundle.manifest
        made_of = {"precision": "int8", "int8_of": bundle.path.name}
        changed = dataclasses.replace(
            manifest,
            graph=dataclasses.replace(manifest.graph, opset=opset),
            files={},
            provenance={**manifest.provenance, **made_of},
        )
        writer.commit(changed)
    return report

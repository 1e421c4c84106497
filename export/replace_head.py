"""A bundle made again with another head: its bank as an input, or only the best scores as output.

The encoder and its weights stay. Nothing here needs PyTorch.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from taidpt.export.graph.from_bundle import encoder_of, require_onnx
from taidpt.export.graph.head import append_head, graph_info
from taidpt.export.graph.onnx_files import save_graph
from taidpt.export.parity.centred_cosine import ExportResult, compare
from taidpt.export.parity.graph_outputs import graph_outputs
from taidpt.export.parity.stored_answers import EXPECTATIONS_FILE, StoredAnswers
from taidpt.export.precision.half import bound_of
from taidpt.progress import Progress
from taidpt.runtime.bundle.bundle import BANK_FILE, MODEL_FILE, PARITY_FILE, Bundle, BundleWriter
from taidpt.runtime.tagger.active_bank import bundle_bank
from taidpt.runtime.top_k import floor_scores, refuse_top

__all__ = ["replace_head"]


def replace_head(
    path: Path, out: Path, bank_as: str, top_k: int | None, progress: Progress, force: bool = False
) -> ExportResult:
    """Write a bundle of the same encoder, tags and thresholds with another head.

    Args:
        path: the bundle; its engines and graphs of other precisions are not copied.
        out: the new bundle's folder.
        bank_as: "constant" or "input".
        top_k: how many best scores of each frame are returned; None for all.
        force: write it even when its outputs are out of bounds.
    Raises:
        InputError: the bundle returns only its best scores, or the bank does not fit.
        BundleError: the bundle was not written by this exporter.
        ParityError: the new graph is out of bounds; nothing was written.
    """
    require_onnx()
    bundle = Bundle.load(path).require_whole()
    manifest = bundle.manifest
    refuse_top(manifest.graph.top_k, path, "another head")
    bank = bundle_bank(bundle)
    progress.start("Changing the head", 1)
    graph = append_head(encoder_of(bundle), bank, manifest.scoring, bank_as, top_k)
    with BundleWriter(out) as writer:
        save_graph(graph, writer.path(MODEL_FILE))
        bank.save(writer.path(BANK_FILE))
        expected = _expectations(bundle, top_k)
        sides = expected.sides("the new graph in onnxruntime (CPUExecutionProvider)")
        written = writer.folder / MODEL_FILE
        found = graph_outputs(written, manifest.input, expected.pixels, bank)
        precision = str(manifest.provenance.get("precision", "fp32"))
        parity = compare(expected.outputs, found, sides, bound_of(precision))
        progress.advance()
        if not force:
            parity.require()
        writer.write(EXPECTATIONS_FILE, expected.to_bytes())
        writer.write(PARITY_FILE, parity.to_bytes())
        changed = dataclasses.replace(
            manifest,
            graph=graph_info(manifest.graph.opset, bank_as, top_k),
            files={},
            provenance={**manifest.provenance, "head_of": path.name},
        )
        return ExportResult(writer.target, writer.commit(changed), parity)


def _expectations(bundle: Bundle, top_k: int | None) -> StoredAnswers:
    stored = StoredAnswers.load(bundle.file(EXPECTATIONS_FILE))
    scores = np.asarray(floor_scores(stored.outputs["scores"], top_k), np.float32)
    return StoredAnswers(stored.pictures, {**stored.outputs, "scores": scores})

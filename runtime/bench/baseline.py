"""The baseline of `taidpt bench`: the tagger's encoder alone, or the whole graph."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from taidpt.runtime.backends.onnx_runtime import OnnxRuntimeBackend
from taidpt.runtime.preprocess.preprocessor import U8Array
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["ENCODER", "Baseline", "open_baseline"]

ENCODER = "the encoder, which is this graph cut at its features"


@dataclass(frozen=True)
class Baseline:
    """What the tagger is compared with.

    Attributes:
        what: its description in the report.
        run: takes uint8 frames [N, *frame_shape].
    """

    what: str
    run: Callable[[U8Array], object]


def open_baseline(tagger: Tagger) -> Baseline:
    """The encoder in a session like the tagger's; the whole graph if it cannot be cut."""
    backend = tagger.backend
    if not isinstance(backend, OnnxRuntimeBackend):
        return _whole(tagger, "an engine cannot be cut")
    if importlib.util.find_spec("onnx") is None:
        return _whole(tagger, "onnx is not installed, which cuts it: pip install onnx")
    manifest = tagger.bundle.manifest
    with TemporaryDirectory(prefix="taidpt-bench-") as folder:
        cut = Path(folder) / "encoder.onnx"
        fault = _cut(tagger.bundle.file(manifest.graph.file), manifest.input.name, cut)
        if fault:
            return _whole(tagger, f"it cannot be cut: {fault}")
        session = backend.new_session(cut)
    return Baseline(ENCODER, lambda frames: session.run(None, {manifest.input.name: frames}))


def _whole(tagger: Tagger, reason: str) -> Baseline:
    what = f"the whole graph, not its encoder alone ({reason})"
    return Baseline(what, lambda frames: tagger.backend.run(frames, tagger.bank_inputs))


def _cut(graph: Path, frames: str, out: Path) -> str:
    """Cut in another process, as the runtime never loads onnx; the reason for a failure, or ""."""
    command = [sys.executable, "-m", "taidpt.bench.cut_encoder", str(graph), frames, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["no reason"])[-1] if done.returncode else ""

"""What `taidpt bench` puts beside the tagger: its bare encoder, or the whole graph and why."""

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

__all__ = ["ENCODER", "Bare", "open_bare"]

ENCODER = "the encoder, which is this graph cut at its features"


@dataclass(frozen=True)
class Bare:
    """The thing that the tagger is compared with.

    Attributes:
        what: in words, for whoever reads the figures.
        run: takes uint8 frames [N, *frame_shape].
    """

    what: str
    run: Callable[[U8Array], object]


def open_bare(tagger: Tagger) -> Bare:
    """The encoder in a session like the tagger's own; where that cannot be, the whole graph."""
    backend = tagger.backend
    if not isinstance(backend, OnnxRuntimeBackend):
        return _whole(tagger, "an engine cannot be cut")
    if importlib.util.find_spec("onnx") is None:
        return _whole(tagger, "onnx is not installed, which cuts it: pip install onnx")
    manifest = tagger.bundle.manifest
    with TemporaryDirectory(prefix="taidpt-bare-") as folder:
        cut = Path(folder) / "encoder.onnx"
        fault = _cut(tagger.bundle.file(manifest.graph.file), manifest.input.name, cut)
        if fault:
            return _whole(tagger, f"it cannot be cut: {fault}")
        session = backend.new_session(cut)
    return Bare(ENCODER, lambda frames: session.run(None, {manifest.input.name: frames}))


def _whole(tagger: Tagger, reason: str) -> Bare:
    what = f"the whole graph, not its encoder alone ({reason})"
    return Bare(what, lambda frames: tagger.backend.run(frames, tagger.bank_inputs))


def _cut(graph: Path, frames: str, out: Path) -> str:
    """Cut in a process of its own, since the runtime loads no onnx; why it failed, or nothing."""
    command = [sys.executable, "-m", "taidpt.bench.cut_encoder", str(graph), frames, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["no reason"])[-1] if done.returncode else ""

"""An encoder taken out of its bundle, converted to another precision, and given its head again."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from taidpt.export.graph.from_bundle import encoder_of
from taidpt.export.graph.head import append_head
from taidpt.export.precision.activation_ranges import Frames
from taidpt.export.precision.gate import PrecisionGate
from taidpt.export.precision.half import QUANTISED, to_half
from taidpt.export.precision.kept_layers import Quantised, quantise_until
from taidpt.export.precision.quantise import METHODS, Quantiser, scheme_for
from taidpt.progress import Progress
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import BackendError, InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["convert"]


def convert(
    bundle: Bundle,
    frames: Frames | None,
    gate: PrecisionGate,
    progress: Progress,
    for_cpu: bool = False,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The bundle's graph in the gate's precision, and notes for its parity report.

    Args:
        bundle: fp32.
        frames: for calibration, where the precision needs it.
        gate: has the precision, and decides when enough layers are back in fp32.
        progress: told about each stage.
        for_cpu: int8 for ONNX Runtime instead of TensorRT.
    Raises:
        InputError: calibration frames are missing.
        BackendError: ONNX Runtime cannot calibrate or quantise the encoder.
    """
    precision = gate.precision
    encoder = encoder_of(bundle)
    if precision not in QUANTISED:
        progress.start(f"Converting to {precision}", 1)
        graph = _with_head(bundle, to_half(encoder, precision))
        progress.advance()
        return graph, {}
    if frames is None:
        raise InputError(
            f"{bundle.path}: the {precision} graph was made of another fp32 graph; "
            "give --frames SOURCE to make it again"
        )
    scheme = scheme_for(precision, for_cpu)
    if not gate.can_run:
        quantiser = Quantiser(encoder, frames, scheme, progress=progress)
        done = Quantised(quantiser.quantise(), layers=len(quantiser.products))
    else:

        def loss_of(quantised: onnx.ModelProto) -> float:
            return gate.loss(_with_head(bundle, quantised))

        def holds(quantised: onnx.ModelProto) -> bool:
            return gate.holds(_with_head(bundle, quantised))

        candidates: list[Quantiser] = []
        for method in METHODS[-1:] if scheme.is_fp8 else METHODS:
            # a tensor that hardly varies has no histogram; the last method needs none
            with contextlib.suppress(*([] if method == METHODS[-1] else [BackendError])):
                candidates.append(Quantiser(encoder, frames, scheme, method, progress))
        quantiser = min(candidates, key=lambda one: loss_of(one.quantise()))
        done = quantise_until(quantiser, holds, loss_of, progress)
    notes = {
        "calibration": quantiser.method.lower(),
        "layers": done.layers,
        "layers_in_fp32": [dataclasses.asdict(layer) for layer in done.kept],
    }
    return _with_head(bundle, done.model), notes


def _with_head(bundle: Bundle, encoder: onnx.ModelProto) -> onnx.ModelProto:
    manifest = bundle.manifest
    graph = manifest.graph
    return append_head(encoder, bundle.bank, manifest.scoring, graph.bank, graph.top_k)

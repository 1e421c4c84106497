"""A bundle's graph in another precision: made without torch, checked before it is written.

On the machine that has PyTorch this adds the graph; on the device, or wherever TensorRT is, the
engine is built from it. Either may run first, or both in one place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taidpt.export.graph.from_bundle import encoder_of, fp32_bundle, require_onnx
from taidpt.export.graph.onnx_files import save_graph
from taidpt.export.parity.labelled_pictures import Labelled, read_labels
from taidpt.export.parity.reference_pictures import (
    Picture,
    camera_frames,
    folder_pictures,
    frame_maker,
)
from taidpt.export.precision.activation_ranges import Frames, calibration_frames
from taidpt.export.precision.gate import PrecisionGate
from taidpt.export.precision.half import QUANTISED, to_half
from taidpt.export.precision.request import EngineRequest, variant_file
from taidpt.progress import Progress
from taidpt.runtime.bundle.bundle import MODEL_FILE, Bundle, BundleWriter
from taidpt.runtime.errors import BackendError, BundleError, InputError, ParityError
from taidpt.runtime.storage.atomic import sha256_of
from taidpt.runtime.storage.json_reader import parse_object

if TYPE_CHECKING:
    import onnx

    from taidpt.export.precision.kept_layers import Quantised

__all__ = [
    "Variant",
    "add_precision",
    "convert",
    "gate_for",
    "with_head",
]


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
    """The bundle with a graph of the precision in it, checked as far as this machine can.

    A graph that is there already is kept when it was made of the same graph and frames.

    Raises:
        BundleError, InputError: the bundle or the calibration cannot be used.
        ParityError: below the bound, unless forced; nothing was changed then.
    """
    bundle = fp32_bundle(path)
    precision = request.options.precision
    name = variant_file(precision)
    if name == MODEL_FILE:
        return Variant(bundle, name, {}, fresh=False)
    frames = _frames(bundle, request)
    gate = gate_for(bundle, request)
    origin = {**_origin(bundle, frames, request), **gate.origin}
    stored = _stored(bundle, precision)
    if stored is not None and _same_origin(stored, origin):
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
        drop = gate.map_drop(writer.folder / name)
        notes = {**origin, **notes, **({} if drop is None else {"map_drop": drop})}
        report = gate.report(writer.folder / name, notes)
        if not request.force:
            gate.require(report, drop)
        writer.write(f"parity.{precision}.json", report.to_bytes())
        if writer.base.files[MODEL_FILE] != bundle.manifest.files[MODEL_FILE]:
            raise BundleError(f"{path}: was exported anew meanwhile; run this command again")
        writer.commit()
    return Variant(Bundle.load(path), name, report.to_json(), fresh=True)


def _frames(bundle: Bundle, request: EngineRequest) -> Frames | None:
    """Calibration frames; None for a precision that needs none, or where none are given."""
    precision = request.options.precision
    if precision not in QUANTISED:
        return None
    if request.calibrate is not None:
        return calibration_frames(request.calibrate, frame_maker(bundle.manifest.input))
    if _stored(bundle, precision) is None:
        raise InputError(
            f"{precision} needs pictures or a video like those it will see: --calibrate PATH"
        )
    return None


def _origin(bundle: Bundle, frames: Frames | None, request: EngineRequest) -> dict[str, Any]:
    """What a graph is made of, for telling whether one that is there already is the same."""
    origin: dict[str, Any] = {"graph_sha256": bundle.manifest.files[MODEL_FILE].sha256}
    if frames is not None:
        origin["calibration_sha256"] = hashlib.sha256(frames.tobytes()).hexdigest()
        origin["calibration_frames"] = len(frames)
    if request.max_map_drop is not None:
        origin["max_map_drop"] = request.max_map_drop
    if request.labels is not None:  # one made without them has no mAP to tell
        origin["labels_sha256"] = sha256_of(request.labels)
    return origin


def _same_origin(stored: dict[str, Any], origin: dict[str, Any]) -> bool:
    notes = stored.get("notes", {})
    return all(notes.get(name) == value for name, value in origin.items())


def _stored(bundle: Bundle, precision: str) -> dict[str, Any] | None:
    """The parity report of a precision's graph, where both are in the bundle."""
    name = f"parity.{precision}.json"
    if not {name, f"model.{precision}.onnx"} <= set(bundle.manifest.files):
        return None
    path = bundle.file(name)
    document = parse_object(path.read_bytes(), str(path))
    return {"passed": False, **document}


def gate_for(bundle: Bundle, request: EngineRequest) -> PrecisionGate:
    """The gate that a request asks for."""
    precision, drop = request.options.precision, request.max_map_drop
    own = () if request.images is None else _own_pictures(bundle, request.images)
    return PrecisionGate(bundle, precision, _labelled(bundle, request), drop, own)


def _own_pictures(bundle: Bundle, folder: Path) -> Sequence[Picture]:
    return camera_frames(folder_pictures(folder), bundle.manifest.input)


def _labelled(bundle: Bundle, request: EngineRequest) -> Labelled | None:
    if request.labels is None:
        return None
    folder = request.images or request.calibrate
    if folder is None or not folder.is_dir():
        raise InputError(f"--labels {request.labels}: where are its pictures? --images DIR")
    pictures = folder_pictures(folder, limit=None)
    spec = bundle.manifest.input
    return read_labels(request.labels, camera_frames(pictures, spec), bundle.names)


def convert(
    bundle: Bundle,
    frames: Frames | None,
    gate: PrecisionGate,
    progress: Progress,
    for_cpu: bool = False,
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Encoder alone → converted → head again, and what there is to say about it.

    Args:
        bundle: of fp32.
        frames: for calibration, where the precision needs it.
        gate: says the precision, and when enough layers are back in fp32.
        progress: told about each stage.
        for_cpu: int8 for ONNX Runtime instead of TensorRT.
    """
    precision = gate.precision
    encoder = encoder_of(bundle)
    if frames is None and precision in QUANTISED:
        raise InputError(
            f"{bundle.path}: its graph is another one than the {precision} one was made of; "
            "give --calibrate PATH to make that anew"
        )
    if frames is None:
        progress.start(f"Converting to {precision}", 1)
        low = with_head(bundle, to_half(encoder, precision))
        progress.advance()
        return low, {}
    method, done = _quantise(bundle, (encoder, frames, for_cpu), gate, progress)
    notes = {
        "calibration": method.lower(),
        "layers": done.layers,
        "layers_in_fp32": [dataclasses.asdict(layer) for layer in done.kept],
    }
    return with_head(bundle, done.model), notes


def with_head(bundle: Bundle, encoder: onnx.ModelProto) -> onnx.ModelProto:
    """An encoder with the bundle's own head."""
    from taidpt.export.graph.head import append_head

    manifest = bundle.manifest
    graph = manifest.graph
    return append_head(encoder, bundle.bank, manifest.scoring, graph.bank, graph.top_k)


def _quantise(
    bundle: Bundle,
    source: tuple[onnx.ModelProto, Frames, bool],
    gate: PrecisionGate,
    progress: Progress,
) -> tuple[str, Quantised]:
    """By the method of calibration that loses least; layers go back until the gate holds."""
    from taidpt.export.precision.kept_layers import Quantised, quantise_until
    from taidpt.export.precision.quantise import METHODS, Quantiser, recipe_for

    encoder, frames, for_cpu = source
    recipe = recipe_for(gate.precision, for_cpu)
    if not gate.can_run:
        quantiser = Quantiser(encoder, frames, recipe, progress=progress)
        return quantiser.method, Quantised(quantiser.quantise(), layers=len(quantiser.products))

    def loss_of(candidate: onnx.ModelProto) -> float:
        return gate.loss(with_head(bundle, candidate))

    tried: list[Quantiser] = []
    for method in METHODS[-1:] if recipe.is_fp8 else METHODS:
        # a tensor that hardly varies has no histogram; the last method knows no such limit
        with contextlib.suppress(*([] if method == METHODS[-1] else [BackendError])):
            tried.append(Quantiser(encoder, frames, recipe, method, progress))
    best = min(tried, key=lambda quantiser: loss_of(quantiser.quantise()))
    done = quantise_until(
        best, lambda candidate: gate.holds(with_head(bundle, candidate)), loss_of, progress
    )
    return best.method, done

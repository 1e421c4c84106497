"""int8 by ONNX Runtime's static quantisation; the most sensitive layers go back until it holds.

Q/DQ nodes around convolutions and matrix products of the encoder alone; the head comes later and
stays fp32. Weights are symmetric a channel. Activations are symmetric for TensorRT (it knows no
zero point) and unsigned for the CPU, whose VNNI instructions want that.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.export.graph_io import RESIZE_PREFIX, finish_graph
from taidpt.export.precision import check_precision
from taidpt.runtime.errors import BackendError, InputError

if TYPE_CHECKING:
    import onnx

__all__ = ["LEAST_FRAMES", "Quantised", "Quantiser", "calibration_frames", "quantise_until"]

Frames = npt.NDArray[np.uint8]
LEAST_FRAMES = 8
_MOST_FRAMES = 128
_BATCH = 4
_PRODUCTS = ("Conv", "MatMul", "Gemm")
# On the CPU the operators between the products join, so that whole chains stay in int8.
_CHAINED = ("Add", "AveragePool", "MaxPool", "Relu")
_JUDGED = 4  # frames on which layers are compared


def calibration_frames(source: Path, prepare: Callable[[npt.NDArray[Any]], Frames]) -> Frames:
    """Frames of the user's pictures or video, evenly spaced, as the graph takes them.

    Args:
        source: a folder of pictures, a picture, or a video.
        prepare: the runtime's preprocessing.
    Returns:
        uint8 [N, H, W, 3], N from 8 to 128.
    Raises:
        InputError: too few, or one that cannot be read.
    """
    from taidpt.runtime.sources import SourceOptions, open_source

    kept: list[Frames] = []
    step, seen = 1, 0
    with open_source(source, SourceOptions(recursive=True)) as frames:
        for frame in frames:
            if seen % step == 0:
                kept.append(prepare(frame.image))
            seen += 1
            if len(kept) == 2 * _MOST_FRAMES:
                kept, step = kept[::2], step * 2
    if len(kept) < LEAST_FRAMES:
        raise InputError(
            f"{source}: calibration needs at least {LEAST_FRAMES} frames, got {len(kept)}; a few "
            "dozen that look like what the camera sees are best"
        )
    rows = np.linspace(0, len(kept) - 1, min(len(kept), _MOST_FRAMES)).round().astype(int)
    return np.stack([kept[row] for row in rows])


@dataclass(frozen=True, eq=False)
class Quantised:
    """A quantised encoder and the nodes that stayed in fp32 because they were too sensitive."""

    model: onnx.ModelProto
    kept: tuple[str, ...] = field(default=())


class Quantiser:
    """Quantises one encoder, with one set of calibration frames, as often as needed."""

    def __init__(
        self, encoder: onnx.ModelProto, frames: Frames, precision: str, for_cpu: bool = False
    ) -> None:
        """Prepare.

        Args:
            encoder: fp32, not changed.
            frames: uint8 [N, H, W, 3].
            precision: "int8" or "fp8".
            for_cpu: unsigned activations and longer chains, for ONNX Runtime's CPU provider.
        """
        self.encoder = encoder
        self.frames = frames
        self.precision = check_precision(precision)
        self.for_cpu = for_cpu and precision == "int8"
        names = {tensor.name for tensor in encoder.graph.initializer}
        self.products = tuple(
            node.name
            for node in encoder.graph.node
            if node.op_type in _PRODUCTS
            and names & set(node.input)
            and not node.name.startswith(RESIZE_PREFIX)
        )

    def quantise(self, kept: Sequence[str] = ()) -> onnx.ModelProto:
        """The encoder with Q/DQ nodes around every layer but those of `kept`."""
        import onnx

        with tempfile.TemporaryDirectory(prefix="taidpt-") as folder:
            # given a graph in memory, the tool moves its weights into a file that is then removed
            source, target = Path(folder) / "encoder.onnx", Path(folder) / "quantised.onnx"
            onnx.save(self.encoder, source)
            self._run(source, target, [*kept, *self._never()])
            return finish_graph(onnx.load(target))

    def rank(self, quantised: onnx.ModelProto) -> list[str]:
        """The products, the most harmed by quantisation first: by their least signal-to-noise."""
        inputs, weights = self._errors(quantised)
        loudest = float("inf")

        def least(node: onnx.NodeProto) -> float:
            found = [inputs.get(name, weights.get(name, loudest)) for name in node.input]
            return min(found, default=loudest)

        nodes = [node for node in self.encoder.graph.node if node.name in self.products]
        return [node.name for node in sorted(nodes, key=least)]

    def _errors(self, quantised: onnx.ModelProto) -> tuple[dict[str, float], dict[str, float]]:
        """Signal-to-quantisation-noise in dB of activations and of weights, by tensor."""
        import onnx
        from onnxruntime.quantization import qdq_loss_debug as debug

        with tempfile.TemporaryDirectory(prefix="taidpt-") as name:
            folder = Path(name)
            plain, low = folder / "plain.onnx", folder / "low.onnx"
            onnx.save(self.encoder, plain)
            onnx.save(quantised, low)
            found = []
            for path in (plain, low):
                wide = path.with_suffix(".wide.onnx")
                debug.modify_model_output_intermediate_tensors(str(path), str(wide))
                reader = _Reader(self.frames[:_JUDGED], self.encoder.graph.input[0].name)
                found.append(debug.collect_activations(str(wide), reader))
            matched = debug.create_activation_matching(found[1], found[0])
            activations = debug.compute_activation_error(
                {name: pair for name, pair in matched.items() if "float" in pair}
            )
            weights = debug.compute_weight_error(debug.create_weight_matching(plain, low))
        return {name: error["qdq_err"] for name, error in activations.items()}, weights

    def _run(self, source: Path, target: Path, kept: list[str]) -> None:
        from onnxruntime import quantization as ort

        low = ort.QuantType.QInt8
        if self.precision == "fp8":
            low = ort.QuantType.QFLOAT8E4M3FN
        reader = _Reader(self.frames, self.encoder.graph.input[0].name)
        try:
            ort.quantize_static(
                str(source),
                str(target),
                reader,
                quant_format=ort.QuantFormat.QDQ,
                op_types_to_quantize=[*_PRODUCTS, *(_CHAINED if self.for_cpu else ())],
                nodes_to_exclude=kept,
                per_channel=self.precision == "int8",
                activation_type=ort.QuantType.QUInt8 if self.for_cpu else low,
                weight_type=low,
                calibrate_method=(
                    ort.CalibrationMethod.MinMax
                    if self.precision == "int8"
                    else ort.CalibrationMethod.Distribution
                ),
                extra_options={"ActivationSymmetric": not self.for_cpu, "WeightSymmetric": True},
            )
        except Exception as error:  # onnxruntime's tools raise plain ValueErrors and worse
            reason = " ".join(str(error).split())[:200]
            raise BackendError(
                f"ONNX Runtime cannot quantise this encoder to {self.precision}: {reason}"
            ) from error

    def _never(self) -> list[str]:
        """Products of two activations (attention), and all that is done to raw pixels."""
        graph = self.encoder.graph
        if not self.for_cpu:
            return [
                node.name
                for node in graph.node
                if node.op_type in _PRODUCTS and node.name not in self.products
            ]
        pixels, names = {graph.input[0].name}, []
        for node in graph.node:
            if node.op_type not in _PRODUCTS and pixels & set(node.input):
                pixels.update(node.output)
                names.append(node.name)
            elif node.op_type in _PRODUCTS and node.name not in self.products:
                names.append(node.name)
        return names


def quantise_until(
    quantiser: Quantiser, judge: Callable[[onnx.ModelProto], float], bound: float
) -> Quantised:
    """Put the most sensitive layers back into fp32 until a figure holds.

    Args:
        judge: a quantised encoder → its least centred cosine.
        bound: what that must reach.
    Returns:
        The first that holds; the last tried, half of the layers in fp32, when none does.
    """
    model = quantiser.quantise()
    if judge(model) >= bound:
        return Quantised(model)
    order = quantiser.rank(model)
    count = 1
    while True:
        kept = tuple(order[:count])
        model = quantiser.quantise(kept)
        if judge(model) >= bound or count >= len(order) // 2:
            return Quantised(model, kept)
        count = min(count * 2, max(len(order) // 2, 1))


class _Reader:
    """Hands calibration frames to ONNX Runtime in small batches."""

    def __init__(self, frames: Frames, name: str) -> None:
        self._batches = [
            {name: frames[start : start + _BATCH]} for start in range(0, len(frames), _BATCH)
        ]
        self._next = iter(self._batches)

    def get_next(self) -> dict[str, Frames] | None:
        return next(self._next, None)

    def __iter__(self) -> Iterator[dict[str, Frames]]:
        return iter(self._batches)

    def rewind(self) -> None:
        self._next = iter(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next = iter(self._batches[start_index:end_index])

    def __len__(self) -> int:
        return len(self._batches)

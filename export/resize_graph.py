"""Resize and crop inside the graph, for one camera size: equal to Pillow within a grey level.

TensorRT has no antialiased Resize. For a fixed frame size the resize is two matrices, of which only
the rows of the crop are kept: `Wh · round(clip(X · Ww))`, horizontally first and rounded to 8 bits
in between, as Pillow does it (without the rounding, edges differ by several grey levels).

Frames are RGB [N, H, W, 3], or NV12 as a Jetson's decoder gives it: [N, H · 3/2, W] bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.export.graph_io import finish_graph
from taidpt.runtime.errors import InputError
from taidpt.runtime.resize import plan_crop

if TYPE_CHECKING:
    import onnx

__all__ = ["FrameInput", "prepend_resize", "resize_matrix", "yuv_to_rgb"]

Matrix = npt.NDArray[np.float32]

_SHARPNESS = -0.5  # Pillow's bicubic
_REACH = 2.0
# Pillow keeps its weights as fixed point numbers of this many bits behind the point.
_PILLOW_BITS = 32 - 8 - 2
# Kr and Kb of the two standards.
_STANDARDS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


@dataclass(frozen=True)
class FrameInput:
    """What the camera gives.

    Attributes:
        height, width: of the frame, in pixels.
        format: "rgb" or "nv12".
        standard: of NV12: "bt601" or "bt709".
        full_range: of NV12: whether luma uses 0 to 255 (else 16 to 235).
    """

    height: int
    width: int
    format: str = "rgb"
    standard: str = "bt709"
    full_range: bool = False

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(f"frame {self.width}x{self.height}: expected a size such as 1920x1080")
        if self.format not in ("rgb", "nv12"):
            raise InputError(f"frame format {self.format!r} is not one of rgb, nv12")
        if self.standard not in _STANDARDS:
            raise InputError(f"standard {self.standard!r} is not one of bt601, bt709")
        if self.format == "nv12" and (self.height % 2 or self.width % 2):
            raise InputError(f"NV12 frames have even sides, got {self.width}x{self.height}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one frame as the graph takes it, uint8."""
        if self.format == "rgb":
            return self.height, self.width, 3
        return self.height * 3 // 2, self.width


def resize_matrix(size: int, resized: int, start: int, count: int) -> Matrix:
    """Pillow's antialiased bicubic along one axis, as float32 [count, size].

    Args:
        size: pixels before.
        resized: pixels after.
        start, count: which of those are kept.
    """
    scale = size / resized
    stretch = max(scale, 1.0)
    reach = _REACH * stretch
    matrix = np.zeros((count, size), np.float64)
    for row in range(count):
        centre = (start + row + 0.5) * scale
        low, high = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), size)
        taps = _cubic((np.arange(low, high) - centre + 0.5) / stretch)
        taps /= taps.sum()
        unit = 1 << _PILLOW_BITS
        matrix[row, low:high] = np.trunc(taps * unit + np.where(taps < 0, -0.5, 0.5)) / unit
    return matrix.astype(np.float32)


def _cubic(offsets: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    x, a = np.abs(offsets), _SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def yuv_to_rgb(standard: str, full_range: bool) -> tuple[Matrix, Matrix]:
    """Matrix [3, 3] and offset [3]: `rgb = matrix · yuv + offset`, all in 0 … 255."""
    kr, kb = _STANDARDS[standard]
    kg = 1 - kr - kb
    luma, chroma, black = (1.0, 1.0, 0.0) if full_range else (255 / 219, 255 / 224, 16.0)
    matrix = np.array(
        [
            [luma, 0, 2 * (1 - kr) * chroma],
            [luma, -2 * (1 - kb) * kb / kg * chroma, -2 * (1 - kr) * kr / kg * chroma],
            [luma, 2 * (1 - kb) * chroma, 0],
        ]
    )
    offset = -matrix @ np.array([black, 128.0, 128.0])
    return matrix.astype(np.float32), offset.astype(np.float32)


def prepend_resize(
    encoder: onnx.ModelProto, frame: FrameInput, crop_hw: tuple[int, int]
) -> onnx.ModelProto:
    """The encoder with resize and crop in front; its input `frames` becomes the camera's frame.

    Args:
        encoder: takes `frames` uint8 [N, crop height, crop width, 3]; not changed.
        frame: what the camera gives.
        crop_hw: the encoder's input size.
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(encoder)
    graph = model.graph
    front = _Front(graph)
    planes = front.rgb_planes(frame)
    cropped = front.resized(planes, frame, crop_hw)
    pixels = front.node("Transpose", [cropped], "pixels", perm=[0, 2, 3, 1])
    _replace_cast(graph, pixels)
    value = graph.input[0]
    shape: list[Any] = ["batch", *frame.shape]
    value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.UINT8, shape))
    graph.node.extend(front.nodes)
    return finish_graph(model)


def _replace_cast(graph: onnx.GraphProto, pixels: str) -> None:
    """The encoder begins by casting bytes to floats; the resize gives it floats."""
    for node in graph.node:
        if node.op_type == "Cast" and list(node.input) == ["frames"]:
            (made,) = node.output
            graph.node.remove(node)
            for other in graph.node:
                other.input[:] = [pixels if name == made else name for name in other.input]
            return
    raise InputError("this encoder does not begin with a cast of its frames; export it again")


class _Front:
    """Collects the nodes before the encoder."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []

    def rgb_planes(self, frame: FrameInput) -> str:
        """Floats [N, 3, H, W] in 0 … 255, whole numbers."""
        from onnx import TensorProto

        floats = self.node("Cast", ["frames"], "floats", to=TensorProto.FLOAT)
        if frame.format == "rgb":
            return self.node("Transpose", [floats], "planes", perm=[0, 3, 1, 2])
        return self._from_nv12(floats, frame)

    def _from_nv12(self, floats: str, frame: FrameInput) -> str:
        """Luma rows, then rows of interleaved U and V of half the size, each for 2 × 2 pixels."""
        height, width = frame.height, frame.width
        sizes = self.constant("nv12_rows", np.array([height, height // 2], np.int64))
        luma, chroma = "encoder/resize/luma", "encoder/resize/chroma"
        self.nodes.append(_make("Split", [floats, sizes], [luma, chroma], axis=1))
        y = self.node("Unsqueeze", [luma, self.integers("first", [1])], "y")
        pairs = self.reshape(chroma, "pairs", [0, height // 2, width // 2, 2])
        halves = self.node("Transpose", [pairs], "halves", perm=[0, 3, 1, 2])
        # nearest: each value serves its 2 × 2 pixels
        spread = self.reshape(halves, "spread", [0, 2, height // 2, 1, width // 2, 1])
        wide = self.node(
            "Expand",
            [spread, self.integers("twice", [1, 2, height // 2, 2, width // 2, 2])],
            "wide",
        )
        uv = self.reshape(wide, "uv", [0, 2, height, width])
        yuv = self.node("Concat", [y, uv], "yuv", axis=1)
        matrix, offset = yuv_to_rgb(frame.standard, frame.full_range)
        weights = self.constant("colours", matrix[:, :, None, None])
        bias = self.constant("colours_offset", offset)
        mixed = self.node("Conv", [yuv, weights, bias], "mixed", kernel_shape=[1, 1])
        return self.to_bytes(mixed, "rgb")

    def resized(self, planes: str, frame: FrameInput, crop_hw: tuple[int, int]) -> str:
        """Floats [N, 3, h, w], whole numbers in 0 … 255."""
        plan = plan_crop((frame.height, frame.width), crop_hw)
        across = resize_matrix(frame.width, plan.resized_width, plan.left, crop_hw[1])
        down = resize_matrix(frame.height, plan.resized_height, plan.top, crop_hw[0])
        rows = np.flatnonzero(down.any(axis=0))
        first, last = int(rows[0]), int(rows[-1]) + 1
        if (first, last) != (0, frame.height):
            planes = self.cut(planes, "used_rows", first, last)
        narrow = self.node(
            "MatMul", [planes, self.constant("resize_across", across.T.copy())], "narrow"
        )
        narrow = self.to_bytes(narrow, "narrow_bytes")
        small = self.node(
            "MatMul", [self.constant("resize_down", down[:, first:last].copy()), narrow], "small"
        )
        return self.to_bytes(small, "small_bytes")

    def to_bytes(self, source: str, name: str) -> str:
        """Round half up and clip to 0 … 255, still floats."""
        half = self.constant(f"{name}_half", np.float32(0.5))
        raised = self.node("Add", [source, half], f"{name}_raised")
        floor = self.node("Floor", [raised], f"{name}_floor")
        least = self.constant(f"{name}_least", np.float32(0))
        most = self.constant(f"{name}_most", np.float32(255))
        return self.node("Clip", [floor, least, most], name)

    def cut(self, source: str, name: str, first: int, last: int) -> str:
        """Rows `first` to `last` of [N, 3, H, W]."""
        bounds = [self.integers(f"{name}_{i}", [v]) for i, v in enumerate((first, last, 2))]
        return self.node("Slice", [source, *bounds], name)

    def reshape(self, source: str, name: str, shape: Sequence[int]) -> str:
        return self.node("Reshape", [source, self.integers(f"{name}_shape", shape)], name)

    def integers(self, name: str, values: Sequence[int]) -> str:
        return self.constant(name, np.array(values, np.int64))

    def constant(self, name: str, value: npt.NDArray[Any] | np.generic) -> str:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"encoder/{name}"))
        return f"encoder/{name}"

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        made = _make(op, list(inputs), [f"encoder/resize/{output}"], **attributes)
        self.nodes.append(made)
        return f"encoder/resize/{output}"


def _make(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    from onnx import helper

    name = outputs[0] if outputs[0].startswith("encoder/") else f"encoder/resize/{outputs[0]}"
    return helper.make_node(op, inputs, outputs, name=name, **attributes)

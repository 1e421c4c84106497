"""Resize and crop inside the graph, for one camera size: equal to Pillow within a grey level.

TensorRT has no antialiased Resize. For a fixed frame size the resize is two matrices, of which only
the rows of the crop are kept: `Wh · round(clip(X · Ww))`. As in Pillow, the horizontal pass comes
first and is rounded to 8 bits; without the rounding, edges differ by several grey levels.

Frames are RGB [N, H, W, 3], or NV12 [N, H · 3/2, W] bytes as from a Jetson's decoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from taidpt.export.graph.onnx_files import RESIZE_PREFIX, NodeAdder, finish_graph
from taidpt.runtime.bundle.input_spec import (
    NV12,
    RGB,
    YUV_MATRICES,
    YUV_RANGES,
    BakedResize,
    InputSpec,
)
from taidpt.runtime.errors import InputError
from taidpt.runtime.preprocess.nv12 import yuv_to_rgb_matrix
from taidpt.runtime.preprocess.resize import resize_matrix

if TYPE_CHECKING:
    import onnx

__all__ = ["FrameInput", "prepend_resize", "resize_graph"]

_PIXELS = f"{RESIZE_PREFIX}pixels"


@dataclass(frozen=True)
class FrameInput:
    """A camera's frames.

    Attributes:
        height, width: of the frame, in pixels.
        format: "rgb" or "nv12".
        matrix: of NV12: "bt601" or "bt709".
        range: of NV12: "limited", where luma uses 16 to 235, or "full".
    """

    height: int
    width: int
    format: str = "rgb"
    matrix: str = "bt709"
    range: str = "limited"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(f"frame {self.width}x{self.height}: expected a size such as 1920x1080")
        known = {"format": ("rgb", "nv12"), "matrix": YUV_MATRICES, "range": YUV_RANGES}
        for name, allowed in known.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"frame {name} {getattr(self, name)!r} is not one of {', '.join(allowed)}"
                )
        if self.format == "nv12" and (self.height % 2 or self.width % 2):
            raise InputError(f"NV12 frames have even sides, got {self.width}x{self.height}")

    def spec(self, crop: InputSpec) -> InputSpec:
        """The manifest's input, from that of the encoder."""
        size = crop.height, crop.width
        colours = (self.matrix, self.range) if self.format == "nv12" else (None, None)
        return dataclasses.replace(
            crop,
            height=self.height,
            width=self.width,
            format=NV12 if self.format == "nv12" else RGB,
            baked_resize=BakedResize(size, *colours),
        )


def prepend_resize(encoder: onnx.ModelProto, spec: InputSpec) -> onnx.ModelProto:
    """The encoder with colour conversion, resize and crop in front.

    Args:
        encoder: takes `frames` uint8 [N, crop height, crop width, 3]; not changed.
        spec: input of the whole graph, with its resize; see `FrameInput.spec`.
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(encoder)
    _replace_cast(model.graph, _PIXELS)
    _Front(model.graph, RESIZE_PREFIX, RESIZE_PREFIX).pixels(spec)
    model.graph.input[0].CopyFrom(_frames(spec))
    return finish_graph(model)


def resize_graph(spec: InputSpec) -> onnx.ModelProto:
    """The graph of `prepend_resize` without the encoder: frames in, its pixels out.

    The output is float32 [N, crop height, crop width, 3], whole numbers in 0 … 255.
    """
    import onnx

    graph = onnx.GraphProto()
    pixels = _Front(graph, RESIZE_PREFIX, RESIZE_PREFIX).pixels(spec)
    graph.input.append(_frames(spec))
    shape = ["batch", *_baked(spec).crop, 3]
    graph.output.append(onnx.helper.make_tensor_value_info(pixels, onnx.TensorProto.FLOAT, shape))
    return finish_graph(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    )


def _frames(spec: InputSpec) -> onnx.ValueInfoProto:
    import onnx

    shape = ["batch", *spec.frame_shape]
    return onnx.helper.make_tensor_value_info("frames", onnx.TensorProto.UINT8, shape)


def _baked(spec: InputSpec) -> BakedResize:
    if spec.baked_resize is None:
        raise ValueError("this input has no resize to put into a graph")
    return spec.baked_resize


def _replace_cast(graph: onnx.GraphProto, pixels: str) -> None:
    """Remove the encoder's cast of bytes to floats: the resize returns floats."""
    for node in graph.node:
        if node.op_type == "Cast" and list(node.input) == ["frames"]:
            (made,) = node.output
            graph.node.remove(node)
            for other in graph.node:
                other.input[:] = [pixels if name == made else name for name in other.input]
            return
    raise InputError("this encoder does not start with a cast of its frames; export it again")


class _Front(NodeAdder):
    """Adds the nodes before the encoder."""

    def pixels(self, spec: InputSpec) -> str:
        """Whole numbers in 0 … 255 as floats, [N, h, w, 3]."""
        cropped = self.resized(self.rgb_planes(spec), spec)
        return self.node("Transpose", [cropped], "pixels", perm=[0, 2, 3, 1])

    def rgb_planes(self, spec: InputSpec) -> str:
        """Whole numbers in 0 … 255 as floats, [N, 3, H, W]."""
        from onnx import TensorProto

        floats = self.node("Cast", ["frames"], "floats", to=TensorProto.FLOAT)
        if spec.format == RGB:
            return self.node("Transpose", [floats], "planes", perm=[0, 3, 1, 2])
        return self._from_nv12(floats, spec)

    def _from_nv12(self, floats: str, spec: InputSpec) -> str:
        """Luma rows, then rows of interleaved U and V of half the size, each for 2 × 2 pixels."""
        height, width = spec.height, spec.width
        sizes = self.constant("nv12_rows", np.array([height, height // 2], np.int64))
        luma = self.node("Split", [floats, sizes], "luma", "chroma", axis=1)
        chroma = f"{RESIZE_PREFIX}chroma"
        y = self.node("Unsqueeze", [luma, self.integers("first", [1])], "y")
        pairs = self.reshape(chroma, "pairs", [0, height // 2, width // 2, 2])
        halves = self.node("Transpose", [pairs], "halves", perm=[0, 3, 1, 2])
        # nearest neighbour: one value for 2 × 2 pixels
        spread = self.reshape(halves, "spread", [0, 2, height // 2, 1, width // 2, 1])
        wide = self.node(
            "Expand",
            [spread, self.integers("twice", [1, 2, height // 2, 2, width // 2, 2])],
            "wide",
        )
        uv = self.reshape(wide, "uv", [0, 2, height, width])
        yuv = self.node("Concat", [y, uv], "yuv", axis=1)
        matrix, offset = yuv_to_rgb_matrix(*spec.colours)
        weights = self.constant("colours", matrix.astype(np.float32)[:, :, None, None])
        bias = self.constant("colours_offset", offset.astype(np.float32))
        mixed = self.node("Conv", [yuv, weights, bias], "mixed", kernel_shape=[1, 1])
        return self.to_bytes(mixed, "rgb")

    def resized(self, planes: str, spec: InputSpec) -> str:
        """Whole numbers in 0 … 255 as floats, [N, 3, h, w]."""
        crop_hw = _baked(spec).crop
        plan = spec.plan((spec.height, spec.width))
        across = resize_matrix(spec.width, plan.resized_width, plan.left, crop_hw[1])
        down = resize_matrix(spec.height, plan.resized_height, plan.top, crop_hw[0])
        rows = np.flatnonzero(down.any(axis=0))
        first, last = int(rows[0]), int(rows[-1]) + 1
        if (first, last) != (0, spec.height):
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

"""The view: which part of a frame the model looks at, and in what shape (docs/views.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.json_reader import JsonReader

__all__ = ["VIEWS", "CropPlan", "Tiles", "View", "ViewRequest", "join_tiles", "plan_crop"]

VIEWS = ("crop", "whole", "wide", "tiles")
# Each tile is a run of the encoder; beyond this many, one frame is a batch of its own.
_MOST_TILES = 64
# Cameras and films are 16:9 unless the user says otherwise.
_USUAL_SHAPE = (16, 9)


@dataclass(frozen=True)
class CropPlan:
    """Position of the crop: size of the resized frame and the crop's top left corner in it."""

    resized_height: int
    resized_width: int
    top: int
    left: int

    def box(
        self, frame_hw: tuple[int, int], crop_hw: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """The crop as (left, top, right, bottom) in pixels of the frame before resizing."""
        scale_y = frame_hw[0] / self.resized_height
        scale_x = frame_hw[1] / self.resized_width
        return (
            self.left * scale_x,
            self.top * scale_y,
            min((self.left + crop_hw[1]) * scale_x, frame_hw[1]),
            min((self.top + crop_hw[0]) * scale_y, frame_hw[0]),
        )


def plan_crop(frame_hw: tuple[int, int], crop_hw: tuple[int, int], whole: bool = False) -> CropPlan:
    """Resize the short side to the crop and centre the other, rounding as torchvision does.

    Args:
        frame_hw: the frame's height and width, in pixels.
        crop_hw: the crop's height and width, in pixels.
        whole: resize both sides to the crop instead, so that nothing is cut off.
    """
    if whole:
        return CropPlan(crop_hw[0], crop_hw[1], 0, 0)
    (height, width), (crop_height, crop_width) = frame_hw, crop_hw
    if crop_height * width >= crop_width * height:  # the height is the side that fits
        resized = crop_height, max(int(crop_height * width / height), crop_width)
    else:
        resized = max(int(crop_width * height / width), crop_height), crop_width
    top = round((resized[0] - crop_height) / 2.0)
    left = round((resized[1] - crop_width) / 2.0)
    return CropPlan(resized[0], resized[1], top, left)


@dataclass(frozen=True)
class Tiles:
    """Square parts of the input, which may overlap. The graph cuts them out.

    Attributes:
        side: of a tile, in pixels.
        stride: of the patches, in pixels.
        corners: top and left of each tile, in patches.
    """

    side: int
    stride: int
    corners: tuple[tuple[int, int], ...]

    @property
    def pixel_corners(self) -> tuple[tuple[int, int], ...]:
        """Top and left of each tile, in pixels of the input."""
        return tuple((top * self.stride, left * self.stride) for top, left in self.corners)

    def fits(self, height: int, width: int) -> bool:
        """Whether all tiles are inside an input of this size."""
        return all(
            top + self.side <= height and left + self.side <= width
            for top, left in self.pixel_corners
        )


@dataclass(frozen=True)
class View:
    """What the model sees of a frame.

    Attributes:
        kind: "crop": the short side resized, the centre cut out. All others see the whole frame,
            both sides resized to the input: "whole" a square, "wide" a rectangle, "tiles" a
            rectangle that the graph cuts into squares.
        tiles: of "tiles".
    """

    kind: str = "crop"
    tiles: Tiles | None = None

    @property
    def sees_all(self) -> bool:
        """Whether nothing of a frame is cut off."""
        return self.kind != "crop"

    @property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """Top and left of each run of the encoder, in patches of the frame."""
        return ((0, 0),) if self.tiles is None else self.tiles.corners

    def plan(self, frame_hw: tuple[int, int], input_hw: tuple[int, int]) -> CropPlan:
        """How a frame becomes the encoder's input; both sizes are height and width in pixels."""
        return plan_crop(frame_hw, input_hw, self.sees_all)

    def __str__(self) -> str:
        return self.kind if self.tiles is None else f"tiles:{len(self.tiles.corners)}"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        if self.tiles is None:
            return {"kind": self.kind}
        tiles = self.tiles
        corners = [list(corner) for corner in tiles.corners]
        sizes = {"tile_side": tiles.side, "patch_stride": tiles.stride}
        return {"kind": self.kind, **sizes, "corners": corners}

    @classmethod
    def from_json(cls, reader: JsonReader) -> View:
        """From a JSON object; BundleError when a key is missing or wrong."""
        kind = reader.choice("kind", VIEWS)
        if kind != "tiles":
            return cls(kind)
        corners = reader.pairs("corners")
        if not 1 <= len(corners) <= _MOST_TILES:
            reader.fail("corners", f"1 to {_MOST_TILES} tiles, as [top, left] in patches")
        side, stride = (reader.integer(key, least=1) for key in ("tile_side", "patch_stride"))
        return cls(kind, Tiles(side, stride, corners))


@dataclass(frozen=True)
class ViewRequest:
    """A view as the user asks for it, before the model's size is known.

    Attributes:
        kind: one of `VIEWS`, or "auto", which `settle` turns into one of them.
        tiles: number of tiles.
        shape: width and height of the frames, of which only the ratio counts; None takes that of
            the camera's frames, or 16:9.
    """

    kind: str = "crop"
    tiles: int = 2
    shape: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str) -> ViewRequest:
        """Read "auto", "crop", "whole", "wide", "wide:4x3", "tiles:6" or "tiles:6:4x3".

        Raises:
            InputError: the text is no such view.
        """
        match = re.fullmatch(
            r"(auto|crop|whole|wide|(?P<tiles>tiles):(?P<count>\d{1,3}))"
            r"(?::(?P<width>\d{1,5})x(?P<height>\d{1,5}))?",
            text,
        )
        kind = text.partition(":")[0]
        shaped = match is not None and match["width"] is not None
        if match is None or (shaped and kind not in ("wide", "tiles")):
            raise InputError(
                f"view {text!r}: expected auto, crop, whole, wide, wide:4x3 or tiles:N"
            )
        shape = (int(match["width"]), int(match["height"])) if shaped else None
        if shape is not None and not 0 < max(shape) <= 8 * min(shape):
            raise InputError(f"view {text!r}: expected a shape between 8x1 and 1x8, such as 16x9")
        count = int(match["count"]) if match["tiles"] else 2
        if not 2 <= count <= _MOST_TILES:
            raise InputError(f"view {text!r}: expected 2 to {_MOST_TILES} tiles")
        return cls(kind, count, shape)

    def settle(self, takes_rectangles: bool) -> ViewRequest:
        """The view itself: "auto" is wide where the tower takes rectangles as it is, else crop.

        Of the views that cost at most 1.8 times as much as the crop, wide measures best
        (docs/views.md). A ViT's positions would have to be interpolated, which no trained one was
        measured with.
        """
        if self.kind != "auto":
            return self
        return ViewRequest("wide" if takes_rectangles else "crop")

    def aspect(self, frame_hw: tuple[int, int] | None) -> float:
        """Width of the frames divided by their height; `frame_hw` is the camera's, where known."""
        if self.shape is not None:
            return self.shape[0] / self.shape[1]
        height, width = frame_hw or _USUAL_SHAPE[::-1]
        return width / height


def join_tiles(
    values: npt.NDArray[np.float32],
    grid: tuple[int, int],
    corners: tuple[tuple[int, int], ...],
) -> npt.NDArray[np.float32]:
    """One value a patch of each tile → one map of the frame; where tiles overlap, the largest.

    Args:
        values: [tiles · rows · columns], tile by tile, each row by row.
        grid: rows and columns of a tile.
        corners: top and left of each tile, in patches.
    Returns:
        float32 [rows, columns] of the frame; −inf where no tile is.
    """
    rows, columns = grid
    height = max(top for top, _ in corners) + rows
    width = max(left for _, left in corners) + columns
    joined = np.full((height, width), -np.inf, np.float32)
    for (top, left), part in zip(corners, values.reshape(-1, rows, columns), strict=True):
        place = joined[top : top + rows, left : left + columns]
        np.maximum(place, part, out=place)
    return joined

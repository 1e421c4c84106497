"""Views: the size and shape of an encoder's input, and the encoder for it."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from taidpt.encoders.base import ImageEncoder
from taidpt.runtime.bundle.input_spec import InputSpec
from taidpt.runtime.bundle.view import Tiles, View, ViewRequest
from taidpt.runtime.errors import InputError

__all__ = ["TiledEncoder", "plan_view", "view_encoder"]

# Neighbouring tiles share at least this part of a tile, so that a small thing on the border of one
# is whole in the next.
_OVERLAP = 1 / 8


def plan_view(
    request: ViewRequest, encoder: ImageEncoder, side: int, aspect: float
) -> tuple[View, tuple[int, int]]:
    """The view, and the height and width of the encoder's input in pixels.

    Rectangles are rounded to whole patches.

    Args:
        request: the user's.
        encoder: of the model; square inputs.
        side: of its input.
        aspect: width of the frames divided by their height.
    Raises:
        InputError: so many tiles would be the same square twice.
    """
    if request.kind in ("crop", "whole"):
        return View(request.kind), (side, side)
    stride = _stride(encoder, side)
    if request.kind == "wide":
        rows = columns = 1
        share = min(1.0, aspect)
    else:
        rows, columns, share = _tile_grid(request.tiles, aspect)
    # the frame is 1 / share tiles high and aspect / share tiles wide
    extra = [max(0, round((length / share - 1) * side / stride)) for length in (1, aspect)]
    size = side + extra[0] * stride, side + extra[1] * stride
    if request.kind == "wide":
        return View("wide"), size
    places = (_spread(extra[0], rows), _spread(extra[1], columns))
    corners = tuple(itertools.product(*places))
    if len(set(corners)) < len(corners):
        raise InputError(
            f"view tiles:{request.tiles}: frames of this shape have no {request.tiles} different "
            "squares; use another number, such as tiles:2 or tiles:6 for 16:9"
        )
    return View("tiles", Tiles(side, stride, corners)), size


def view_encoder(encoder: ImageEncoder, spec: InputSpec) -> nn.Module:
    """The encoder for a view: as it is, for a rectangle, or over tiles.

    Args:
        encoder: of the model.
        spec: the encoder's input, or that of a graph with a resize.
    Raises:
        InputError: this tower takes no rectangle.
    """
    if spec.view.tiles is not None:
        return TiledEncoder(encoder, spec.view.tiles)
    return encoder.at(*spec.crop_hw) if spec.view.kind == "wide" else encoder


class TiledEncoder(nn.Module):
    """An encoder run on square parts of its input as one batch.

    There is a global feature for each tile, of which each class takes the best: their mean loses
    small things among the other tiles (docs/views.md). The patches of all tiles are one list, so
    that the local branch weighs them against each other.

    Args:
        encoder: takes pictures [B, 3, side, side].
        tiles: where the parts are.
    """

    def __init__(self, encoder: nn.Module, tiles: Tiles) -> None:
        super().__init__()
        self.encoder, self.tiles = encoder, tiles

    def extra_repr(self) -> str:
        """The tiles, so that the modules of two views print differently."""
        return str(self.tiles)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] → global features [B, tiles, D] and patch features [B, tiles · P, D]."""
        side, corners = self.tiles.side, self.tiles.pixel_corners
        parts = [images[..., y : y + side, x : x + side] for y, x in corners]
        count = len(parts)
        whole, patches = self.encoder(torch.stack(parts, dim=1).flatten(0, 1))
        whole = whole.reshape(-1, count, whole.shape[-1])
        return whole, patches.reshape(-1, count * patches.shape[1], patches.shape[2])


def _stride(encoder: ImageEncoder, side: int) -> int:
    """Pixels between two patches: how much wider an input with one more column is."""
    columns = encoder.grid(side, side)[1]
    wider = (
        next(width for width in itertools.count(side + 1) if encoder.grid(side, width)[1] >= count)
        for count in (columns + 1, columns + 2)
    )
    first, second = wider
    return second - first


def _tile_grid(count: int, aspect: float) -> tuple[int, int, float]:
    """Rows and columns of tiles, and a tile's side as a share of the frame's height.

    Of all ways to lay them out, the one with the smallest tiles, which see most detail.
    """
    layouts = []
    for rows in range(1, count + 1):
        columns = count // rows
        if rows * columns == count:
            side = max(1 / _span(rows), aspect / _span(columns))
            layouts.append((side, rows, columns))
    side, rows, columns = min(layouts)
    return rows, columns, min(side, 1.0, aspect)


def _span(count: int) -> float:
    """Length of `count` tiles in a row, in tiles, with the least overlap."""
    return count - (count - 1) * _OVERLAP


def _spread(last: int, count: int) -> list[int]:
    """Evenly spaced positions from 0 to `last`."""
    return [round(index * last / max(count - 1, 1)) for index in range(count)]

"""Bicubic, antialiased resize and crop in NumPy with banded matrices; only the crop is computed.

Each output pixel is a weighted sum of a few input pixels, so the resize matrix is a narrow band.
Blocks of a few outputs are small dense products, which the BLAS computes quickly.

- exact: rows first, rounded to 8 bits, then columns, with Pillow's own weights and rounding. At
  most one grey level away from it, in less than one value of a thousand.
- fast: columns first, one rounding at the end: less memory traffic, at most a few levels away at
  hard edges, where Pillow's intermediate rounding clips the overshoot.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bundle.view import View

__all__ = ["BandedResize", "resize_matrix"]

U8Array = npt.NDArray[np.uint8]
F32Array = npt.NDArray[np.float32]

# The kernel is Keys' cubic with a = -0.5, as Pillow and torchvision use it; it reaches two pixels
# of the coarser grid to either side.
_REACH = 2.0
_SHARPNESS = -0.5
# Pillow's weights are whole multiples of 2⁻²², and halves are rounded up. With other weights or
# another rounding, whole areas of a smooth picture end up to two levels away.
_WEIGHT_STEP = 2.0**-22
# Outputs of a block: of 4 … 28, 8 was the fastest for both passes (1080p to 224 × 224, one core).
_BLOCK = 8
# OpenBLAS gives products above this many multiplications to its threads, which spin while they
# wait: on a busy machine one resize became 50 times slower. Smaller products stay on the calling
# thread. Fewer than 8 rows a product would only add calls.
_LARGEST_PRODUCT = 1 << 18
_LEAST_ROWS = 8


@dataclass(frozen=True)
class _Block:
    """Outputs [begin, end) = inputs [low, high) · `weights` [high − low, end − begin]."""

    low: int
    high: int
    begin: int
    end: int
    weights: F32Array


class BandedResize:
    """Resizes and crops frames of one size; several threads may call it at once."""

    def __init__(
        self,
        frame_hw: tuple[int, int],
        crop_hw: tuple[int, int],
        channels: int,
        exact: bool = True,
        view: View | None = None,
    ) -> None:
        """Compute the weights.

        Args:
            frame_hw: height and width of the frames, in pixels.
            crop_hw: height and width of the result, in pixels.
            channels: of the frames.
            exact: round between the passes, as Pillow does.
            view: which part of the frames is kept; None for the centre.
        """
        self._crop_hw, self._channels, self._exact = crop_hw, channels, exact
        plan = (view or View()).plan(frame_hw, crop_hw)
        across = _blocks(frame_hw[1], plan.resized_width, plan.left, crop_hw[1], _BLOCK)
        down = _blocks(frame_hw[0], plan.resized_height, plan.top, crop_hw[0], _BLOCK)
        self._columns = across[0].low, max(block.high for block in across)
        self._rows = down[0].low, max(block.high for block in down)
        self._across = [_interleaved(block, self._columns[0], channels) for block in across]
        self._down = [_transposed(block, self._rows[0]) for block in down]
        self._scratch = threading.local()

    def __call__(self, frame: U8Array) -> U8Array:
        """Resize a frame, uint8 [H, W, channels], to uint8 [height, width, channels]."""
        window = frame[slice(*self._rows), slice(*self._columns)]
        # Taken out by one atomic call and put back at the end, so that a call inside a signal
        # handler, which interrupts this one, finds none and allocates its own.
        scratch = self._scratch.__dict__.pop("arrays", None) or self._allocate(window.shape)
        resize = self._rows_first if self._exact else self._columns_first
        out = resize(window, *scratch)
        _to_levels(out)
        result = out.astype(np.uint8).reshape(*self._crop_hw, self._channels)
        self._scratch.arrays = scratch
        return result

    def _rows_first(
        self, window: U8Array, buffer: F32Array, middle: F32Array, out: F32Array
    ) -> F32Array:
        height, step = len(window), len(buffer)
        for top in range(0, height, step):
            part = window[top : top + step]
            pixels = buffer[: len(part)]
            pixels.reshape(part.shape)[...] = part
            levels = middle[top : top + len(part)]
            for block in self._across:
                source = pixels[:, block.low : block.high]
                np.matmul(source, block.weights, out=levels[:, block.begin : block.end])
            _to_levels(levels)
        for block in self._down:
            _combine_rows(block, middle[block.low : block.high], out)
        return out

    def _columns_first(
        self, window: U8Array, buffer: F32Array, middle: F32Array, out: F32Array
    ) -> F32Array:
        for block in self._down:
            part = window[block.low : block.high]
            pixels = buffer[: len(part)]
            pixels.reshape(part.shape)[...] = part
            _combine_rows(block, pixels, middle)
        step = _rows_at_once(self._across)
        for top in range(0, len(middle), step):
            rows = slice(top, top + step)
            for block in self._across:
                source = middle[rows, block.low : block.high]
                np.matmul(source, block.weights, out=out[rows, block.begin : block.end])
        return out

    def _allocate(self, window: tuple[int, ...]) -> tuple[F32Array, ...]:
        """Scratch arrays: input rows as floats, the result of the first pass, and of the second."""
        height, wide = window[0], window[1] * self._channels
        out = self._crop_hw[0], self._crop_hw[1] * self._channels
        if self._exact:
            shapes = (min(_rows_at_once(self._across), height), wide), (height, out[1]), out
        else:
            tallest = max(block.high - block.low for block in self._down)
            shapes = (tallest, wide), (out[0], wide), out
        return tuple(np.empty(shape, np.float32) for shape in shapes)


def _rows_at_once(across: list[_Block]) -> int:
    largest = max(block.weights.size for block in across)
    return max(_LARGEST_PRODUCT // largest, _LEAST_ROWS)


def _combine_rows(block: _Block, source: F32Array, out: F32Array) -> None:
    """Compute one block of the vertical pass, some columns at a time."""
    step = max(_LARGEST_PRODUCT // block.weights.size, _LEAST_ROWS)
    for left in range(0, source.shape[1], step):
        columns = slice(left, left + step)
        np.matmul(block.weights, source[:, columns], out=out[block.begin : block.end, columns])


def _to_levels(values: F32Array) -> None:
    """Round, halves up, and clip to 0 … 255 in place."""
    values += 0.5
    np.floor(values, out=values)
    np.clip(values, 0, 255, out=values)


def resize_matrix(size: int, resized: int, first: int, count: int) -> F32Array:
    """Pillow's antialiased bicubic along one axis, float32 [count, size].

    Args:
        size, resized: pixels before and after.
        first, count: range of the outputs that are kept.
    """
    scale = size / resized
    coarse = max(scale, 1.0)
    centres = (np.arange(first, first + count) + 0.5) * scale
    low = np.maximum((centres - _REACH * coarse + 0.5).astype(int), 0)[:, None]
    high = np.minimum((centres + _REACH * coarse + 0.5).astype(int), size)[:, None]
    taps = low + np.arange((high - low).max())
    weights = _bicubic((taps - centres[:, None] + 0.5) / coarse) * (taps < high)
    weights /= weights.sum(axis=1, keepdims=True)
    weights = np.copysign(np.floor(np.abs(weights) / _WEIGHT_STEP + 0.5) * _WEIGHT_STEP, weights)
    matrix = np.zeros((count, max(size, taps.max() + 1)), np.float32)  # taps beyond weigh nothing
    np.put_along_axis(matrix, taps, weights.astype(np.float32), axis=1)
    return matrix[:, :size]


def _blocks(size: int, resized: int, first: int, count: int, block: int) -> list[_Block]:
    matrix = resize_matrix(size, resized, first, count)
    blocks = []
    for begin in range(0, count, block):
        rows = matrix[begin : begin + block]
        used = np.flatnonzero(rows.any(axis=0))
        low, high = int(used[0]), int(used[-1]) + 1
        weights = np.ascontiguousarray(rows[:, low:high].T)
        blocks.append(_Block(low, high, begin, begin + len(rows), weights))
    return blocks


def _interleaved(block: _Block, first: int, channels: int) -> _Block:
    """The same block for interleaved channels."""
    taps, outputs = block.weights.shape
    wide = np.zeros((taps, channels, outputs, channels), np.float32)
    for channel in range(channels):
        wide[:, channel, :, channel] = block.weights
    return _Block(
        (block.low - first) * channels,
        (block.high - first) * channels,
        block.begin * channels,
        block.end * channels,
        wide.reshape(taps * channels, outputs * channels),
    )


def _transposed(block: _Block, first: int) -> _Block:
    weights = np.ascontiguousarray(block.weights.T)
    return _Block(block.low - first, block.high - first, block.begin, block.end, weights)


def _bicubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic; zero from 2 on."""
    x, a = np.abs(x), _SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))

"""A square matrix of shares as SVG: the fuller a cell, the larger its share."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["matrix"]

# Units of the drawing: a cell, and a letter of a name, which is a little narrower than it is high.
_CELL, _LETTER = 14, 6.2
_LONGEST = 22  # letters of a name; the cell's text has the whole
# A cell below this is as good as empty; without it, 60 tags are 3,600 rectangles.
_LEAST = 0.05


def matrix(names: Sequence[str], values: npt.NDArray[np.float64]) -> str:
    """The matrix with the names beside its rows and above its columns.

    Args:
        names: C names.
        values: shares in [0, 1], [C, C]; others are clipped, NaN is empty.
    """
    shown = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
    margin = round(_LETTER * max(map(len, shown))) + 8
    size = margin + _CELL * len(names)
    parts = []
    for index, name in enumerate(shown):
        place, text = margin + _CELL * index, html.escape(name)
        parts.append(
            f'<text x="{margin - 4}" y="{place + 11}" text-anchor="end">{text}</text>'
            f'<text transform="translate({place + 11},{margin - 4}) rotate(-90)">{text}</text>'
        )
    filled = np.clip(np.nan_to_num(values), 0.0, 1.0)
    for row, column in np.argwhere(filled >= _LEAST).tolist():
        share = float(filled[row, column])
        text = html.escape(f"{names[row]} and {names[column]}: {share:.2f}")
        parts.append(
            f'<rect x="{margin + _CELL * column}" y="{margin + _CELL * row}" width="{_CELL - 1}" '
            f'height="{_CELL - 1}" fill-opacity="{share:.2f}"><title>{text}</title></rect>'
        )
    return (
        f'<div class="scroll"><svg class="matrix" viewBox="0 0 {size} {size}" width="{size}" '
        f'height="{size}" role="img">{"".join(parts)}</svg></div>\n'
    )

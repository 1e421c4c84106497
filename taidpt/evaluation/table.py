"""One table for every result of evaluation: lines for a terminal, Markdown, JSON values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Cell", "Table", "json_ready"]

Cell = str | float | None


@dataclass(frozen=True)
class Table:
    """Rows of texts and numbers.

    Attributes:
        columns: the headings.
        rows: one cell a column; numbers are shown with three decimals, None and NaN as a dash.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def lines(self) -> Iterator[str]:
        """Aligned columns, the first to the left and the others to the right."""
        texts = [list(self.columns), *(list(map(_text, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        for first, *rest in texts:
            cells = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
            yield "  ".join([f"{first:<{widths[0]}}", *cells])

    def markdown(self) -> str:
        """A Markdown table with a line feed at its end."""
        rows = [self.columns, ["---"] * len(self.columns), *(map(_text, row) for row in self.rows)]
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def json_ready(value: Any) -> Any:
    """The same value with every number that is not finite as None, which JSON can hold."""
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if isinstance(value, float):  # NumPy's float64 too
        return float(value) if math.isfinite(value) else None
    return value


def _text(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell
    return "–" if cell is None or math.isnan(cell) else f"{cell:.3f}"

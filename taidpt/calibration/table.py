"""The table of what was learned, as people read it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from taidpt.calibration.statistics.estimator import Calibration

if TYPE_CHECKING:
    from taidpt.text_thresholds import TextTag

__all__ = ["print_table", "print_text_table", "score_format"]

_DIGITS = 4  # of the thresholds' spread
_MOST_DECIMALS = 7
_MOST_NAMES = 10  # of tags in one line


def print_table(calibration: Calibration) -> None:
    """A line a tag: its switches, how often it was seen, and how sure that is."""
    worth, tags = calibration.effective_frames, calibration.tags
    alike = f", worth {worth:.0f} independent ones" if worth < calibration.frames - 0.5 else ""
    print(f"{calibration.frames} frames{alike}, {len(tags)} tags\n")
    shares = [f"{tag.expected_share:.1%}" if tag.state == "seen" else tag.state for tag in tags]
    _print_rows(
        "seen in",
        [(t.name, t.on, t.off, share, t.sureness) for t, share in zip(tags, shares, strict=True)],
    )
    unsure = sum(tag.sureness == "low" for tag in tags)
    if unsure:
        print(f"\n{unsure} tags are unsure: more frames, or a few labels (--labels), help")
    kept = [tag.name for tag in tags if not tag.learned]
    if kept:
        print(f"{len(kept)} tags keep their thresholds, as these frames show too little of them:")
        print(f"  {', '.join(kept[:_MOST_NAMES])}{', …' if len(kept) > _MOST_NAMES else ''}")


def print_text_table(tags: Mapping[str, TextTag]) -> None:
    """A line a tag: its switches, how many captions name it, and how sure that is."""
    _print_rows(
        "named by",
        [
            (name, tag.threshold.on, tag.threshold.off, str(tag.named), tag.sureness)
            for name, tag in tags.items()
        ],
    )
    unnamed = sum(tag.named == 0 for tag in tags.values())
    if unnamed:
        print(f"\n{unnamed} tags are named by no caption, and take what all tags have in common")
    print("\nno picture was seen, so no tag is more than fairly sure: --frames makes it better")


def _print_rows(column: str, tags: Sequence[tuple[str, float, float, str, str]]) -> None:
    form = score_format([score for _, on, off, *_ in tags for score in (on, off)])
    rows: list[tuple[str, ...]] = [("tag", "on", "off", column, "sure")]
    rows += [(name, f"{on:{form}}", f"{off:{form}}", *rest) for name, on, off, *rest in tags]
    width, *widths = (max(map(len, cells)) for cells in zip(*rows, strict=True))
    for name, *numbers, sure in rows:
        columns = (f"{cell:>{max(8, size)}}" for cell, size in zip(numbers, widths, strict=False))
        print("  ".join([f"{name:<{max(4, width)}}", *columns, sure]))


def score_format(scores: Sequence[float]) -> str:
    """A format for a column of scores: four digits of their spread, whatever its size."""
    highest = max(map(abs, scores)) or 1.0
    spread = max(scores) - min(scores) or highest
    decimals = max(0, _DIGITS - 1 - _power(spread))
    if decimals <= _MOST_DECIMALS:
        return f".{decimals}f"
    return f".{decimals + max(_power(highest), _power(spread))}e"


def _power(number: float) -> int:
    return math.floor(math.log10(number))

"""Which shapes an engine is built for: least, usual and largest of each input."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Shape", "profile_shapes"]

Shape = tuple[int, ...]
_FRAMES = "frames"
_USUAL_TAGS = 80
_MOST_TAGS = 8192  # of a bank that is an input; scratch memory grows with it


def profile_shapes(
    inputs: Mapping[str, Shape], batch: tuple[int, int, int], least_tags: int = 1
) -> dict[str, tuple[Shape, ...]]:
    """Batch sizes for the frames, numbers of tags for a bank that is an input.

    Args:
        inputs: shapes by name; the first dimension of each is free.
        batch: least, usual and largest number of frames.
        least_tags: K of a graph that returns the K best scores: it takes no fewer tags.
    Returns:
        Three shapes for each input.
    """
    tags = (least_tags, max(_USUAL_TAGS, least_tags), _MOST_TAGS)
    return {
        name: tuple((size, *shape[1:]) for size in (batch if name == _FRAMES else tags))
        for name, shape in inputs.items()
    }

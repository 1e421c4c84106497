"""The shapes that an engine is built for: least, usual and largest of each input."""

from __future__ import annotations

from collections.abc import Mapping

from taidpt.runtime.bundle.manifest import TOP_OUTPUTS

__all__ = ["Shape", "profile_shapes"]

Shape = tuple[int, ...]
_FRAMES = "frames"
# Tags of a bank that is an input. TensorRT optimises for the usual number, COCO's 80; its scratch
# memory grows with the largest.
_USUAL_TAGS = 80
_MOST_TAGS = 8192


def profile_shapes(
    inputs: Mapping[str, Shape], outputs: Mapping[str, Shape], batch: tuple[int, int, int]
) -> dict[str, tuple[Shape, ...]]:
    """Batch sizes for the frames, numbers of tags for a bank that is an input.

    Args:
        inputs: shapes by name; the first dimension of each is dynamic.
        outputs: shapes by name; a graph with top-k K needs at least K tags.
        batch: least, usual and largest number of frames.
    Returns:
        Three shapes for each input.
    """
    best, _ = TOP_OUTPUTS
    least = outputs[best][1] if best in outputs else 1
    tags = (least, max(_USUAL_TAGS, least), _MOST_TAGS)
    return {
        name: tuple((size, *shape[1:]) for size in (batch if name == _FRAMES else tags))
        for name, shape in inputs.items()
    }

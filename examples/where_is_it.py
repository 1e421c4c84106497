"""Paint where in a picture a tag is seen, as a heatmap.

python examples/where_is_it.py street.taidpt photo.jpg dog where.png
"""

from __future__ import annotations

import sys

from taidpt import Tagger, TaidptError, read_image
from taidpt.runtime import paint_heatmap, rgb_image


def main(bundle: str, picture: str, tag: str, target: str) -> None:
    """Save the picture with the heatmap over the part that the model sees."""
    frame = read_image(picture)
    with Tagger.load(bundle) as tagger:
        result = tagger(frame)
        spec = tagger.bundle.manifest.input
        painted = paint_heatmap(rgb_image(frame), result, tag, spec)
    painted.save(target)
    print(f"{tag}: score {result[tag].score:.2f}, heatmap {result.heatmap(tag).shape}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except TaidptError as error:  # one line: what is wrong, and what to do
        sys.exit(f"error: {error}")

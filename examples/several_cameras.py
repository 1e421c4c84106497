"""Tag several sources with one tagger, their frames batched together.

python examples/several_cameras.py street.taidpt rtsp://camera/1 rtsp://camera/2
"""

from __future__ import annotations

import sys

from taidpt import Tagger, TaidptError, open_source
from taidpt.runtime import MergedSource


def main(bundle: str, *cameras: str) -> None:
    """Print the events; each source has its own smoothing and events."""
    source = MergedSource([open_source(camera) for camera in cameras])
    with Tagger.load(bundle) as tagger, tagger.stream(source, batch=len(cameras)) as stream:
        for moment in stream:
            for event in moment.events:
                print(f"{moment.frame.source}: {event.time_s:.1f} s {event.tag} {event.kind}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except TaidptError as error:  # one line: what is wrong, and what to do
        sys.exit(f"error: {error}")

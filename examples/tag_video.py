"""Tag a video, and print from when to when each tag was on.

python examples/tag_video.py street.taidpt clip.mp4
"""

from __future__ import annotations

import sys

from taidpt import Tagger, TaidptError


def main(bundle: str, video: str) -> None:
    """Print events as they are decided, then the timeline of the whole video."""
    with Tagger.load(bundle) as tagger, tagger.stream(video, max_fps=10) as stream:
        for moment in stream:
            for event in moment.events:
                print(f"{event.time_s:7.2f} s  {event.tag} {event.kind}")
        for interval in stream.timeline():
            print(f"{interval.tag}: {interval.start_s:.1f} to {interval.end_s:.1f} s")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except TaidptError as error:  # one line: what is wrong, and what to do
        sys.exit(f"error: {error}")

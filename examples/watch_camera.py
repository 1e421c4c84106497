"""Watch a camera or a stream for some seconds: RTSP, HTTP, /dev/video0, or a GStreamer pipeline.

    python examples/watch_camera.py street.taidpt rtsp://camera/1 60
    python examples/watch_camera.py street.taidpt "gst:nvarguscamerasrc ! nvvidconv" 60

A broken stream is reopened automatically. A slow machine drops the oldest frames.
"""

from __future__ import annotations

import sys
import time

from taidpt import Tagger, TaidptError


def main(bundle: str, camera: str, seconds: str) -> None:
    """Print each event when it is decided, and at the end the number of dropped frames."""
    end = time.monotonic() + float(seconds)
    with Tagger.load(bundle) as tagger, tagger.stream(camera, max_fps=10) as stream:
        for moment in stream:
            for event in moment.events:
                print(f"{event.time_s:.1f} s: {event.tag} {event.kind}", flush=True)
            if time.monotonic() > end:
                break
        print(f"last frame at {moment.time:.1f} s, {stream.dropped} frames dropped")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except TaidptError as error:  # one line: what is wrong, and what to do
        sys.exit(f"error: {error}")

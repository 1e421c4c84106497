"""A stream server for tests: serves test pictures as MPEG-TS over TCP to one client at a time.

python server.py PORT SECONDS FIRST_COLOUR
"""

from __future__ import annotations

import sys
import time

import av
import numpy as np


def serve(port: int, seconds: float, colour: int) -> None:
    """Wait for a client and send 25 frames a second for so long."""
    with av.open(f"tcp://127.0.0.1:{port}?listen=1", "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency"}
        stream.codec_context.gop_size = 5
        for index in range(round(seconds * 25)):
            pixels = np.full((48, 64, 3), (colour + index) % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            time.sleep(0.04)


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))

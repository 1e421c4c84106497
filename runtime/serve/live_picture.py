"""Live pictures as JPEG: one encoder a camera, however many look, none if nobody does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

from taidpt.runtime.painting.drawing import jpeg, rgb_image
from taidpt.runtime.sites.site import Camera
from taidpt.runtime.stream.moment import Moment

__all__ = ["BOUNDARY", "LivePicture", "live_parts"]

BOUNDARY = "frame"
# Width of a live picture in pixels: sharp on a phone, and half a megabyte a second at 10 fps.
_WIDTH = 960


class _Viewer:
    """The cameras that have a new picture for one client; used on the event loop alone."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.new: dict[LivePicture, None] = {}

    def notify(self, picture: LivePicture) -> None:
        self.new[picture] = None
        self.arrived.set()


class LivePicture:
    """Encodes the frames of one camera while somebody looks.

    Attributes:
        camera: the camera.
        encoded: number of pictures that were encoded.
        jpeg: the newest picture.
        closed: whether no more pictures will come.
    """

    def __init__(self, camera: Camera) -> None:
        self.camera, self.encoded, self.jpeg, self.closed = camera, 0, b"", False
        self._viewers: set[_Viewer] = set()
        self._changed = threading.Condition()
        self._moment: Moment | None = None
        self._encoding = False

    @property
    def viewers(self) -> int:
        """Number of clients that look."""
        return len(self._viewers)

    def offer(self, moment: Moment) -> None:
        """Take a frame, if anybody looks; called in the tagging thread."""
        if self._viewers:
            with self._changed:
                self._moment = moment
                self._changed.notify()

    def join(self, viewer: _Viewer) -> None:
        """Begin to notify a client; called on the event loop."""
        self._viewers.add(viewer)
        with self._changed:
            if self._encoding:
                viewer.notify(self)
                return
            self._encoding, self._moment = True, self.camera.latest
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._encode, args=(loop,), daemon=True).start()

    def leave(self, viewer: _Viewer) -> None:
        """End that; the encoder stops with the last client."""
        self._viewers.discard(viewer)
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """End all answers; called on the event loop."""
        self.closed = True
        self._wake()

    def _encode(self, loop: asyncio.AbstractEventLoop) -> None:
        """Encode the newest frame, again and again, until nobody looks."""
        while True:
            with self._changed:
                while self._moment is None and self._viewers and not self.closed:
                    self._changed.wait(1.0)
                moment, self._moment = self._moment, None
                if moment is None:
                    self._encoding = False
                    return
            self.jpeg = jpeg(rgb_image(moment.frame.picture), _WIDTH)
            self.encoded += 1
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for viewer in self._viewers:
            viewer.notify(self)


async def live_parts(pictures: Sequence[LivePicture]) -> AsyncIterator[bytes]:
    """The parts of a multipart/x-mixed-replace answer; a slow client misses pictures.

    Each part names its camera in the header X-Camera.
    """
    viewer = _Viewer()
    for picture in pictures:
        picture.join(viewer)
    try:
        while not any(picture.closed for picture in pictures):
            await viewer.arrived.wait()
            viewer.arrived.clear()
            while viewer.new:
                picture = next(iter(viewer.new))
                del viewer.new[picture]
                if picture.jpeg:
                    yield _part(picture)
    finally:
        for picture in pictures:
            picture.leave(viewer)


def _part(picture: LivePicture) -> bytes:
    head = (
        f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nX-Camera: {picture.camera.id}\r\n"
        f"Content-Length: {len(picture.jpeg)}\r\n\r\n"
    )
    return head.encode() + picture.jpeg + b"\r\n"

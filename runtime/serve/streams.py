"""Answers without an end: parts are sent as they come, to clients that read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taidpt.runtime.serve.operations import RefusedError

__all__ = ["EndlessResponse", "Seats"]

# A client that takes nothing for so long is gone or stuck, in seconds; its seat is freed.
_PATIENCE_S = 20.0


class Seats:
    """How many endless answers there may be at once; used on the event loop alone.

    Each costs a connection and up to one picture of memory. 64 are more than a house has screens,
    and less than a small board notices.
    """

    def __init__(self, most: int = 64) -> None:
        self.most, self.taken = most, 0

    def take(self) -> Callable[[], None]:
        """Take a seat; returns the function that frees it.

        Raises:
            RefusedError: 503, there is none.
        """
        if self.taken >= self.most:
            raise RefusedError(503, f"{self.most} viewers are connected already; try again later")
        self.taken += 1
        freed = False

        def free() -> None:
            nonlocal freed
            if not freed:
                freed = True
                self.taken -= 1

        return free


class EndlessResponse(Response):
    """Sends the parts of an iterator until it ends, the client leaves, or takes nothing."""

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        media_type: str,
        free: Callable[[], None],
    ) -> None:
        """Send `parts`; `free` is called once at the end, whatever ends it."""
        super().__init__(headers={"Cache-Control": "no-store"})
        self._parts, self._free = parts, free
        self.headers["content-type"] = media_type
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = asyncio.ensure_future(_disconnected(receive))
        pump = asyncio.ensure_future(self._pump(send, left))
        try:
            await asyncio.wait({pump, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                left.cancel()
                pump.cancel()
                await asyncio.gather(pump, return_exceptions=True)
                await self._parts.aclose()  # type: ignore[attr-defined]  # an async generator
            finally:
                self._free()

    async def _pump(self, send: Send, left: asyncio.Future[None]) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for part in self._parts:
            message = {"type": "http.response.body", "body": part, "more_body": True}
            await asyncio.wait_for(send(message), _PATIENCE_S)
            if left.done():  # before Python 3.12, `wait_for` may lose a cancellation
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""Interlaced pictures → whole ones, by FFmpeg's bwdif."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["deinterlaced"]

# One picture out for each one in; pictures that say they are progressive pass untouched.
_OPTIONS = "mode=send_frame:parity=auto:deint=interlaced"


def deinterlaced(pictures: Iterable[Any]) -> Iterator[Any]:
    """The same pictures, those that are flagged as interlaced made whole.

    As many come out as went in, with their times. From the first interlaced one on they come out
    one late, because the filter looks at the next; before it they pass straight through.
    """
    graph = _Graph()
    for picture in pictures:
        yield from graph.take(picture)
    yield from graph.flush()


class _Graph:
    """The filter for pictures of one form; made anew when the form changes."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._form: tuple[int, int, str] | None = None

    def take(self, picture: Any) -> Iterator[Any]:
        """What is ready when this picture has come."""
        form = picture.width, picture.height, picture.format.name
        if self._graph is not None and form != self._form:
            yield from self.flush()
        if self._graph is None:
            if not picture.interlaced_frame:
                yield picture
                return
            self._graph, self._form = _make(picture), form
        self._graph.push(picture)
        yield from self._ready()

    def flush(self) -> Iterator[Any]:
        """What the filter still holds; it is gone then."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._ready()
            self._graph = None

    def _ready(self) -> Iterator[Any]:
        import av.error

        while True:
            try:
                yield self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return


def _make(picture: Any) -> Any:
    import av.filter

    graph = av.filter.Graph()
    first = graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=picture.time_base,
    )
    bwdif, last = graph.add("bwdif", _OPTIONS), graph.add("buffersink")
    first.link_to(bwdif)
    bwdif.link_to(last)
    graph.configure()
    return graph

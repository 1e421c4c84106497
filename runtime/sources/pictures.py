"""Pictures as frames: picture files, and arrays that are in memory already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import LOG, Frame, Selector, Source, SourceOptions

__all__ = ["ArraySource", "ImageSource"]


class ImageSource(Source):
    """Picture files, in the order given.

    One that cannot be read is named in the log and passed over; at the end that is an InputError.
    A single picture fails at once.

    Attributes:
        wanted: the pictures that it will give, but for those that cannot be read.
    """

    def __init__(self, name: str, paths: list[Path], options: SourceOptions) -> None:
        self.name = name
        self._paths = paths
        self._selector = Selector(options)
        self.wanted = tuple(paths[:: options.every])
        self.total = len(self.wanted)

    def frames(self) -> Iterator[Frame]:
        """Read the pictures one by one."""
        from taidpt.runtime.sources.picture_files import read_image

        unread: list[str] = []
        for index, path in enumerate(self._paths):
            if not self._selector.wants(index, None):
                continue
            try:
                image = read_image(path)
            except InputError as error:
                if len(self._paths) == 1:
                    raise
                LOG.warning("passed over: %s", error)
                unread.append(str(path))
                continue
            yield Frame(image, None, index, str(path))
        if unread:
            raise InputError(
                f"{self.name}: {len(unread)} of {len(self._paths)} pictures could not be read, "
                f"the first is {unread[0]}; the others were used"
            )


class ArraySource(Source):
    """Arrays from an iterable, taken in the thread that asks for them."""

    name = "array"
    threaded = False

    def __init__(self, arrays: Iterable[npt.NDArray[Any]], options: SourceOptions) -> None:
        self._arrays = arrays
        self._fps = options.fps
        self._selector = Selector(options)
        with contextlib.suppress(TypeError):
            self.total = -(-len(arrays) // options.every)  # type: ignore[arg-type]

    def frames(self) -> Iterator[Frame]:
        """Number the arrays, and time them when the options give a rate."""
        for index, array in enumerate(self._arrays):
            time_s = None if self._fps is None else index / self._fps
            if self._selector.wants(index, time_s):
                yield Frame(array, time_s, index, self.name)

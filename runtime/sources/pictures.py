"""Pictures as frames: picture files, and arrays that are in memory already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import (
    LOG,
    Frame,
    Selector,
    Source,
    SourceOptions,
    UnreadError,
    refuse_scaler,
)

__all__ = ["ArraySource", "ImageSource"]


class ImageSource(Source):
    """Picture files, in the order given.

    A picture that cannot be read is a warning in the log, and the others are read; an UnreadError
    at the end if none could be read.

    Attributes:
        wanted: the pictures that will be read.
    """

    def __init__(self, name: str, paths: list[Path], options: SourceOptions) -> None:
        refuse_scaler(name, options)
        self.name = name
        self._every = options.every
        self.wanted = tuple(paths[:: options.every])
        self.total = len(self.wanted)

    def frames(self) -> Iterator[Frame]:
        """Read the pictures one by one."""
        from taidpt.runtime.sources.picture_files import read_image

        unread: list[InputError] = []
        for number, path in enumerate(self.wanted):
            try:
                image = read_image(path)
            except InputError as error:
                if self.total == 1:
                    raise UnreadError(str(error)) from None
                LOG.warning("passed over: %s", error)
                unread.append(error)
                continue
            yield Frame(image, None, number * self._every, str(path))
        if unread:
            what = f"{self.name}: {len(unread)} of {self.total} pictures could not be read"
            if len(unread) == self.total:
                raise UnreadError(f"{what}, the first is {unread[0]}")
            LOG.warning("%s, the first is %s; the others were used", what, unread[0])


class ArraySource(Source):
    """Arrays from an iterable, read in the thread that asks for them."""

    name = "array"
    threaded = False

    def __init__(self, arrays: Iterable[npt.NDArray[Any]], options: SourceOptions) -> None:
        refuse_scaler(self.name, options)
        self._arrays = arrays
        self._fps = options.fps
        self._selector = Selector(options)
        with contextlib.suppress(TypeError):
            self.total = -(-len(arrays) // options.every)  # type: ignore[arg-type]

    def frames(self) -> Iterator[Frame]:
        """Number the arrays, with times if the options give a rate."""
        for index, array in enumerate(self._arrays):
            time_s = None if self._fps is None else index / self._fps
            if self._selector.wants(index, time_s):
                yield Frame(array, time_s, index, self.name)

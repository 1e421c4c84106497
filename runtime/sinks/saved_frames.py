"""JPEG files of the frames at which tags come on, with the tags painted on them."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.runtime.painting.tag_boxes import Painter
from taidpt.runtime.printable import printable
from taidpt.runtime.sinks.base import Sink
from taidpt.runtime.storage.outputs import write_output
from taidpt.runtime.stream.moment import Moment

__all__ = ["SavedFramesSink"]

_QUALITY = 90
_DESCRIPTION = 0x010E  # EXIF's ImageDescription, which picture viewers show and search


class SavedFramesSink(Sink):
    """Saves each picture that has a tag, and each frame of a video at which a tag comes on.

    A file is named by its source and time: `clip_0012.40s.jpg`. Frames of cameras and streams carry
    the date, because their times begin anew with each run.
    """

    def __init__(self, folder: str | Path, painter: Painter) -> None:
        """Create the folder.

        Raises:
            InputError: the folder cannot be created.
        """
        self._folder, self._painter = Path(folder), painter
        self._taken: dict[str, str] = {}
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be a folder for frames: {error.strerror}") from None

    def write(self, moment: Moment) -> None:
        """Save the frame, if a tag comes on.

        Raises:
            InputError: the file cannot be written.
        """
        timed = moment.time is not None
        if not (any(event.kind == "on" for event in moment.events) if timed else moment.on):
            return
        image = self._painter.paint(moment)
        stream, exif = io.BytesIO(), image.getexif()
        exif[_DESCRIPTION] = ", ".join(map(printable, moment.on))
        image.save(stream, "JPEG", quality=_QUALITY, exif=exif)
        write_output(self._folder / self._name(moment), stream.getvalue())

    def _name(self, moment: Moment) -> str:
        source = moment.frame.source
        is_file = Path(source).is_file()
        stem = re.sub(r"[^\w.-]+", "_", Path(source).stem if is_file else source).strip("_")[-80:]
        if moment.time is not None:
            date = "" if is_file else time.strftime("_%Y%m%d-%H%M%S")
            return f"{self._own(stem, source)}{date}_{moment.time:07.2f}s.jpg"
        number = "" if is_file else f"_{moment.frame.index:06d}"
        return f"{self._own(stem, source)}{number}.jpg"

    def _own(self, stem: str, source: str) -> str:
        """The stem, with a number where another source of this run has the same."""
        name, number = stem, 1
        while self._taken.setdefault(name, source) != source:
            number += 1
            name = f"{stem}-{number}"
        return name

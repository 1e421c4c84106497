"""What `taidpt tag` shows on standard error: log lines and progress."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

from taidpt.runtime.printable import printable
from taidpt.runtime.redact import redact
from taidpt.runtime.sources.base import Source
from taidpt.runtime.stream.moment import Moment

__all__ = ["FrameProgress", "log_to_stderr"]


class FrameProgress:
    """Progress of one source: a bar where standard error is a terminal, else one final line."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._count = 0
        self._start_s = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> FrameProgress:
        if sys.stderr.isatty() and not self._source.live:
            from tqdm import tqdm

            name, total = printable(self._source.name), self._source.total
            self._bar = tqdm(desc=name, total=total, unit="frame", leave=False, dynamic_ncols=True)
        return self

    def step(self, moment: Moment) -> None:
        """Count one frame."""
        self._count += 1
        if self._bar is not None:
            self._bar.set_postfix_str(printable(", ".join(moment.on[:4])), refresh=False)
            self._bar.update()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is not None and issubclass(kind, BrokenPipeError):
            return
        seconds = max(time.monotonic() - self._start_s, 1e-9)
        with contextlib.suppress(OSError):
            print(
                f"{printable(self._source.name)}: frames: {self._count}, seconds: {seconds:.1f}, "
                f"frames a second: {self._count / seconds:.1f}",
                file=sys.stderr,
            )


class _RedactingFormatter(logging.Formatter):
    """Removes credentials and control characters, which other libraries may repeat."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, redact(super().format(record)).split("\n")))


@contextlib.contextmanager
def log_to_stderr(lowest: int = logging.INFO) -> Iterator[None]:
    """Show the project's log lines of a level and above inside the `with`."""
    logger = logging.getLogger("taidpt")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_RedactingFormatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(lowest)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

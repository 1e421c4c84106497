"""Progress of long work on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

__all__ = ["BarProgress", "Progress", "SilentProgress", "open_progress", "show_elapsed"]

_TICK_S = 0.5  # the display counts whole seconds, so twice a second never skips one


class Progress(Protocol):
    """Receives the progress of long work."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Begin a stage of `total` units, `done` of them from an earlier run."""

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Count finished units; `detail` is shown beside the bar (as "loss 1.234")."""

    def note(self, line: str) -> None:
        """Print a line that matters whatever the display."""


class SilentProgress:
    """Shows nothing."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Ignore."""

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Ignore."""

    def note(self, line: str) -> None:
        """Ignore."""


class BarProgress(AbstractContextManager["BarProgress"]):
    """A tqdm bar a stage, with the time left; one line a stage where no terminal shows bars."""

    def __init__(self) -> None:
        self._has_terminal = sys.stderr.isatty()
        self._bar: Any = None

    def __exit__(self, *_: object) -> None:
        self._finish_bar()

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Begin a bar, or print the stage's name once."""
        if not self._has_terminal:
            self.note(description if total == 1 else f"{description}: {total}")
            return
        from tqdm import tqdm

        self._finish_bar()
        self._bar = tqdm(desc=description, total=total, initial=done, dynamic_ncols=True)

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(detail, refresh=False)
            self._bar.update(count)

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)

    def _finish_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def open_progress(shown: bool) -> AbstractContextManager[Progress]:
    """Progress on standard error, or none."""
    return BarProgress() if shown else contextlib.nullcontext(SilentProgress())


@contextlib.contextmanager
def show_elapsed(description: str) -> Iterator[None]:
    """Show the time since the start of work of unknown length; only on a terminal."""
    from tqdm import tqdm

    done = threading.Event()
    layout = "{desc} {elapsed}"
    with tqdm(desc=description, bar_format=layout, leave=False, disable=None) as bar:

        def tick() -> None:
            while not (bar.disable or done.wait(_TICK_S)):
                bar.refresh()

        ticker = threading.Thread(target=tick, daemon=True, name="elapsed")
        ticker.start()
        try:
            yield
        finally:
            done.set()
            ticker.join()

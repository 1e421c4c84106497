"""Progress of long work on standard error: a bar where a person looks on, lines where none does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["Progress", "RichProgress", "SilentProgress", "show_elapsed"]

_TICK_S = 0.5


class Progress(Protocol):
    """What long work tells about itself."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        """A new stage of so many units begins, some of them perhaps done before."""

    def advance(self, count: int = 1, detail: str = "") -> None:
        """So many units are done; `detail` stands beside the bar (as "loss 1.234")."""

    def note(self, line: str) -> None:
        """Something that a reader should know whatever the display."""


class SilentProgress:
    """Says nothing."""

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Nothing."""

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Nothing."""


class RichProgress(AbstractContextManager["RichProgress"]):
    """Bars with the time left, through rich; where no terminal shows them, a line a stage."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = None if self._console.is_terminal else -1

    def __enter__(self) -> RichProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Begin a bar (or say the stage's name once)."""
        if self._task == -1:
            self.note(description if total == 1 else f"{description}: {total}")
            return
        self._task = int(self._bars.add_task(description, total=total, completed=done, detail=""))

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Move the bar on."""
        if self._task is None or self._task == -1:
            return
        from rich.progress import TaskID

        self._bars.update(TaskID(self._task), advance=count, detail=detail)

    def note(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def show_elapsed(description: str) -> Iterator[None]:
    """Show on a terminal that work of unknown length goes on, and for how long; else nothing."""
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

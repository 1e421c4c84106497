"""Stages that overlap: each pulls from the stage before in a thread of its own."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

__all__ = ["Merge", "Prefetch"]

T = TypeVar("T")

# How long `close` waits for a thread that may hang in a read: longer than decoding any frame.
_JOIN_S = 2.0
# Longest waits between two looks at a flag that no thread signals. Waking 20 times a second costs
# nothing measurable and delays an idle merge by at most one frame of a 20 fps camera; twice a
# second is enough for Ctrl-C.
_POLL_S = 0.05
_CHECK_S = 0.5
# Items that each merged source keeps ready: one to hand over and one that is being made.
_KEPT_READY = 2
# Networks deliver live frames in bursts: TCP sent up to five at once here, after a pause of 0.8 s.
# So a live source keeps that many, none of them for longer than a second (in seconds) while a newer
# one is there: a machine that is too slow skips the past instead of falling behind.
_LIVE_READY, _LONGEST_WAIT_S = 6, 1.0
# Measured on two cores, where three stages share what inference leaves: 0.92 of the rate of
# inference alone instead of 0.86, because decoding no longer interrupts a running inference.
_YIELDING_NICE = 3


class Prefetch(Generic[T]):
    """Runs an iterable in a thread and keeps a bounded number of its items ready.

    An error of the iterable is raised after the items before it. With `live` a full queue drops its
    oldest item, and counts it, instead of blocking the iterable; so does one whose oldest item has
    waited for a second, if a newer one is ready.
    """

    def __init__(
        self,
        items: Iterable[T],
        size: int,
        live: bool = False,
        wake: threading.Event | None = None,
        yielding: bool = False,
    ) -> None:
        """Start to run `items`.

        Args:
            items: the iterable; only the worker thread may touch it afterwards.
            size: how many items may wait; a live source keeps six at least.
            live: drop items instead of waiting.
            wake: set whenever an item, the end or an error is available.
            yielding: lower the thread's priority, for machines with few cores.
        """
        self.dropped = 0
        self._items, self._live = items, live
        self._size = max(size, _LIVE_READY) if live else size
        self._wake, self._yielding = wake, yielding
        self._ready: deque[tuple[float, T]] = deque()  # each with the moment at which it was ready
        self._changed = threading.Condition()
        self._stopping = self._done = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self.wait()
            return self._take()

    def wait(self) -> None:
        """Block until an item is ready, or no more will come."""
        with self._changed:
            while not (self._ready or self._done or self._stopping):
                # bounded, so that Ctrl-C is handled on every system
                self._changed.wait(_CHECK_S)

    def take_ready(self, count: int) -> list[T]:
        """Return up to `count` items that are ready now, without waiting."""
        with self._changed:
            self._drop_old()
            items = [self._ready.popleft()[1] for _ in range(min(count, len(self._ready)))]
            self._changed.notify_all()
            return items

    @property
    def ended(self) -> bool:
        """Whether no more items will come; an error may still be raised."""
        with self._changed:
            return self._done and not self._ready

    def stop(self) -> None:
        """Stop reading the iterable; items that are ready may still be taken.

        It takes no lock, so a signal handler may call it.
        """
        self._stopping = True

    def close(self) -> None:
        """Stop, drop the items that are ready, and wait for the thread, at most two seconds.

        A thread that hangs in a read of a dead camera ends when that read does.
        """
        with self._changed:
            self._stopping = self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _take(self) -> T:
        if self._ready:
            self._drop_old()
            _, item = self._ready.popleft()
            self._changed.notify_all()
            return item
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    def _drop_old(self) -> None:
        oldest_s = time.monotonic() - _LONGEST_WAIT_S
        while self._live and len(self._ready) > 1 and self._ready[0][0] < oldest_s:
            self._ready.popleft()
            self.dropped += 1

    def _run(self) -> None:
        error: BaseException | None = None
        if self._yielding:
            _yield_to_others()
        try:
            for item in self._items:
                self._put(item)
                if self._stopping:
                    break
            if isinstance(self._items, Generator):
                self._items.close()  # in the thread that uses its files
        except BaseException as caught:  # raised in the thread that takes the items
            error = caught
        with self._changed:
            self._error, self._done = error, True
            self._changed.notify_all()
        self._signal()

    def _put(self, item: T) -> None:
        with self._changed:
            while len(self._ready) >= self._size and not self._stopping:
                if self._live:
                    self._ready.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait(_CHECK_S)
            if not self._closed:
                self._ready.append((time.monotonic(), item))
            self._changed.notify_all()
        self._signal()

    def _signal(self) -> None:
        if self._wake is not None:
            self._wake.set()


def _yield_to_others() -> None:
    """Lower the priority of this thread; only Linux has priorities of single threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            nice = os.getpriority(os.PRIO_PROCESS, thread) + _YIELDING_NICE
            os.setpriority(os.PRIO_PROCESS, thread, nice)


class Merge(Generic[T]):
    """Takes items from several iterables in turn; iterate it once.

    If one of them is live: from any that has an item ready. Otherwise one item of each, in order,
    so that every run yields the same sequence.
    """

    def __init__(
        self,
        sources: Sequence[Iterable[T]],
        live: Sequence[bool],
        on_error: Callable[[int, Exception], None],
        at_once: int | None = None,
    ) -> None:
        """Start to run the iterables.

        Args:
            sources: each runs in a thread of its own and keeps some items ready.
            live: for each source, whether it drops its oldest item when full.
            on_error: called with i and the error that ended source i; the others continue.
            at_once: how many sources run at a time; the next one starts when one has ended. None
                runs all.
        """
        self._wake = threading.Event()
        self._waiting = deque(zip(sources, live, strict=True))
        self._on_error = on_error
        self._in_order = not any(live)
        self._fetchers: list[Prefetch[T]] = []
        for _ in range(len(sources) if at_once is None else at_once):
            self._begin_next()

    @property
    def dropped(self) -> tuple[int, ...]:
        """Number of items that were dropped of each source that has begun."""
        return tuple(fetcher.dropped for fetcher in self._fetchers)

    def __iter__(self) -> Iterator[T]:
        running = list(range(len(self._fetchers)))
        try:
            while running:
                self._wake.clear()
                items = self._take(running)
                yield from items
                ended = [number for number in running if self._fetchers[number].ended]
                for number in ended:
                    _report_end(self._fetchers[number], number, self._on_error)
                    running[running.index(number)] = self._begin_next()
                running = [number for number in running if number >= 0]
                if not items and running:
                    self._wake.wait(_POLL_S)
        finally:
            for fetcher in self._fetchers:
                fetcher.stop()
            for fetcher in self._fetchers:
                fetcher.close()

    def _take(self, running: Sequence[int]) -> list[T]:
        """One item of each source; of the live ones, only of those that have one ready."""
        fetchers = [self._fetchers[number] for number in running]
        if self._in_order:
            for fetcher in fetchers:
                fetcher.wait()
        return [item for fetcher in fetchers for item in fetcher.take_ready(1)]

    def _begin_next(self) -> int:
        """Start the next source; return its number, or -1 when none is left."""
        if not self._waiting:
            return -1
        source, live = self._waiting.popleft()
        self._fetchers.append(Prefetch(source, _KEPT_READY, live, self._wake, yielding=True))
        return len(self._fetchers) - 1


def _report_end(
    fetcher: Prefetch[T], number: int, on_error: Callable[[int, Exception], None]
) -> None:
    try:
        next(fetcher)
    except StopIteration:
        pass
    except Exception as error:
        on_error(number, error)

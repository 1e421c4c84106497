"""Events in SQLite: written by one thread, read by any, kept for some days or gigabytes.

The state of the tags is saved in the same transaction as the events that follow from it, so that
after a kill no event is missing and none comes twice, but for the last second.
"""

from __future__ import annotations

import functools
import json
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import InputError
from taidpt.runtime.sites.config import Retention
from taidpt.runtime.storage.json_reader import parse_json

__all__ = ["EventQuery", "EventStore", "NewEvent", "StoredEvent"]

_LOG = logging.getLogger("taidpt.runtime")
_SCHEMA = 1
_TABLES = """
PRAGMA auto_vacuum = INCREMENTAL;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, decided_at REAL NOT NULL,
    camera TEXT NOT NULL, zone TEXT NOT NULL, tag TEXT NOT NULL, kind TEXT NOT NULL,
    score REAL, peak REAL
);
CREATE INDEX events_at ON events (at);
CREATE INDEX events_tag ON events (tag, id);
CREATE INDEX events_camera ON events (camera, id);
CREATE TABLE pictures (event INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);
CREATE TABLE clips (event INTEGER PRIMARY KEY, mp4 BLOB NOT NULL);
CREATE TABLE states (source TEXT PRIMARY KEY, at REAL NOT NULL, state TEXT NOT NULL);
"""
_COLUMNS = "id, at, decided_at, camera, zone, tag, kind, score, peak"
# Events that may wait while the disk is slow; older ones are dropped and counted.
_MOST_WAITING = 1000
# Clips that may wait: each has some megabytes.
_MOST_CLIPS = 20
# Retention is looked at once a minute, and removes this many events in one transaction.
_CLEAN_S, _CLEAN_ROWS = 60.0, 500


@dataclass(frozen=True)
class NewEvent:
    """An event to keep.

    Attributes:
        at, decided_at: seconds since 1970 of the change, and of the decision.
        camera, zone: where; zone "" is the whole picture.
        tag: the tag, or the name of a rule.
        kind: "on", "off" or "rule".
        score, peak: as in `Event`; None for a rule.
        picture: makes the JPEG of the moment, in the store's thread; None keeps none.
    """

    at: float
    decided_at: float
    camera: str
    zone: str
    tag: str
    kind: str
    score: float | None = None
    peak: float | None = None
    picture: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class StoredEvent:
    """An event with its number; 0 where it could not be stored."""

    id: int
    at: float
    decided_at: float
    camera: str
    zone: str
    tag: str
    kind: str
    score: float | None
    peak: float | None
    has_picture: bool
    has_clip: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class EventQuery:
    """Which events to read; None does not restrict.

    Attributes:
        tag, camera: exact names.
        since, until: bounds of `at`, in seconds since 1970.
        before, after: bounds of the number, both exclusive.
        limit: how many at most.
        oldest_first: the order; otherwise the newest first.
    """

    tag: str | None = None
    camera: str | None = None
    since: float | None = None
    until: float | None = None
    before: int | None = None
    after: int | None = None
    limit: int = 100
    oldest_first: bool = False


class EventStore(Closing):
    """The events of a site in one file.

    Attributes:
        lost: events that could not be written, because the disk was full or too slow.
        failure: why the last write failed; empty after one that succeeded.
    """

    def __init__(
        self,
        path: Path,
        retention: Retention,
        on_event: Callable[[StoredEvent], None] = lambda _: None,
    ) -> None:
        """Open or create the file, and start the thread that writes.

        Args:
            path: the SQLite file.
            retention: how long events are kept.
            on_event: called in the store's thread with each event after it is written.
        Raises:
            InputError: the file cannot be used, or is of a newer version.
        """
        self.lost, self.failure = 0, ""
        self._path, self._retention, self._on_event = path, retention, on_event
        try:
            self._writer, self._reader = self._open(), self._open()
        except sqlite3.Error as error:
            raise InputError(
                f"{path}: cannot be used as an event store: {error}; move it away to start anew"
            ) from None
        self._reading = threading.Lock()
        self._changed = threading.Condition()
        self._waiting: deque[NewEvent] = deque()
        self._states: dict[str, Mapping[str, Any]] = {}
        self._clips: dict[int, bytes] = {}
        self._closing = False
        self._cleaned_s = -_CLEAN_S
        self._thread = threading.Thread(target=self._run, daemon=True, name="event store")
        self._thread.start()

    def put(
        self, events: Sequence[NewEvent], states: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Queue events, and the states of sources that they belong to, without waiting."""
        with self._changed:
            self._waiting.extend(events)
            self._states.update(states or {})
            while len(self._waiting) > _MOST_WAITING:
                self._waiting.popleft()
                self.lost += 1
            self._changed.notify()

    def put_clip(self, number: int, mp4: bytes) -> None:
        """Queue the clip of an event without waiting."""
        with self._changed:
            self._clips[number] = mp4
            if len(self._clips) > _MOST_CLIPS:  # the disk is too slow
                del self._clips[next(iter(self._clips))]
            self._changed.notify()

    def events(self, query: EventQuery) -> list[StoredEvent]:
        """Read events; the newest first unless the query says otherwise."""
        bounds = {
            "tag = ?": query.tag,
            "camera = ?": query.camera,
            "at >= ?": query.since,
            "at <= ?": query.until,
            "id < ?": query.before,
            "id > ?": query.after,
        }
        used = {text: value for text, value in bounds.items() if value is not None}
        where = f"WHERE {' AND '.join(used)}" if used else ""
        order = "ASC" if query.oldest_first else "DESC"
        rows = self._read(
            f"SELECT {_COLUMNS}, EXISTS (SELECT 1 FROM pictures WHERE event = id), "
            f"EXISTS (SELECT 1 FROM clips WHERE event = id) "
            f"FROM events {where} ORDER BY id {order} LIMIT ?",
            (*used.values(), query.limit),
        )
        return [_stored(row[:-2], *map(bool, row[-2:])) for row in rows]

    def event(self, number: int) -> StoredEvent | None:
        """One event by its number; None if there is none (any more)."""
        found = self.events(EventQuery(before=number + 1, after=number - 1))
        return found[0] if found else None

    def picture(self, number: int) -> bytes | None:
        """The JPEG of an event; None if it has none."""
        rows = self._read("SELECT jpeg FROM pictures WHERE event = ?", (number,))
        return bytes(rows[0][0]) if rows else None

    def clip(self, number: int) -> bytes | None:
        """The MP4 of an event; None if it has none, or none yet."""
        rows = self._read("SELECT mp4 FROM clips WHERE event = ?", (number,))
        return bytes(rows[0][0]) if rows else None

    def states(self) -> dict[str, tuple[float, dict[str, Any]]]:
        """Source → when its state was saved, in seconds since 1970, and the state."""
        rows = self._read("SELECT source, at, state FROM states")
        return {source: (at, parse_json(text)) for source, at, text in rows}

    @property
    def size(self) -> int:
        """Bytes of the file, without its journal."""
        (pages,), (page,) = (
            self._read(f"PRAGMA {name}")[0] for name in ("page_count", "page_size")
        )
        return int(pages) * int(page)

    @property
    def waiting(self) -> int:
        """Events that are not written yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Write what waits, and close the file."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._writer.close()
        self._reader.close()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=5, check_same_thread=False)
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA:
            database.close()
            raise InputError(
                f"{self._path}: an event store of schema {version}, newer than this version knows "
                f"({_SCHEMA}); update taidpt, or name another folder with --data"
            )
        if version == 0:
            database.executescript(f"{_TABLES}PRAGMA user_version = {_SCHEMA};")
        # A commit survives a kill at once, and a power cut but for the last moments.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        return database

    def _read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._reading:
            return self._reader.execute(statement, values).fetchall()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._has_work() or self._closing or self._is_clean_due()):
                    self._changed.wait(_CLEAN_S)
                events, states = list(self._waiting), self._states
                self._waiting.clear()
                clips, self._states, self._clips = self._clips, {}, {}
                closing = self._closing
            for event in self._write(events, states):
                self._on_event(event)
            for number, mp4 in clips.items():
                self._attempt(functools.partial(self._write_clip, number, mp4))
            if self._is_clean_due():
                self._cleaned_s = time.monotonic()
                self._attempt(self._clean)
            if closing and not self._has_work():
                return

    def _has_work(self) -> bool:
        return bool(self._waiting or self._states or self._clips)

    def _write_clip(self, number: int, mp4: bytes) -> None:
        self._writer.execute("REPLACE INTO clips VALUES (?, ?)", (number, mp4))

    def _write(
        self, events: Sequence[NewEvent], states: Mapping[str, Mapping[str, Any]]
    ) -> list[StoredEvent]:
        pictures = [None if event.picture is None else event.picture() for event in events]
        stored: list[StoredEvent] = []

        def write() -> None:
            for event, jpeg in zip(events, pictures, strict=True):
                row = self._writer.execute(
                    f"INSERT INTO events ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                    _values(event),
                )
                number = int(row.lastrowid or 0)
                if jpeg is not None:
                    self._writer.execute("INSERT INTO pictures VALUES (?, ?)", (number, jpeg))
                stored.append(_stored((number, *_values(event)), jpeg is not None))
            for source, state in states.items():
                self._writer.execute(
                    "REPLACE INTO states VALUES (?, ?, ?)", (source, time.time(), json.dumps(state))
                )

        if self._attempt(write):
            self.failure = ""
            return stored
        self.lost += len(events)
        return [_stored((0, *_values(event)), False) for event in events]

    def _attempt(self, write: Callable[[], None]) -> bool:
        """Run a transaction; log the first of several failures, and say whether it succeeded."""
        try:
            with self._writer:
                write()
        except sqlite3.Error as error:
            if not self.failure:
                _LOG.warning(
                    "%s: events cannot be written: %s; tagging continues", self._path, error
                )
            self.failure = str(error)
            return False
        return True

    def _is_clean_due(self) -> bool:
        return time.monotonic() - self._cleaned_s >= _CLEAN_S

    def _clean(self) -> None:
        """Remove the oldest events beyond the retention, some at a time."""
        oldest = time.time() - self._retention.days * 86_400
        too_large = self.size > self._retention.gigabytes * 1e9
        condition = "1" if too_large else f"at < {oldest}"
        chosen = f"SELECT id FROM events WHERE {condition} ORDER BY id LIMIT {_CLEAN_ROWS}"
        self._writer.execute(f"DELETE FROM pictures WHERE event IN ({chosen})")
        self._writer.execute(f"DELETE FROM clips WHERE event IN ({chosen})")
        self._writer.execute(f"DELETE FROM events WHERE id IN ({chosen})")
        self._writer.executescript("PRAGMA incremental_vacuum;")  # `execute` frees one page alone


def _values(event: NewEvent) -> tuple[Any, ...]:
    """The columns of an event, but its number."""
    return tuple(value for name, value in vars(event).items() if name != "picture")


def _stored(row: Sequence[Any], has_picture: bool, has_clip: bool = False) -> StoredEvent:
    """The event of a row in the order of the columns."""
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return StoredEvent(**values, has_picture=has_picture, has_clip=has_clip)

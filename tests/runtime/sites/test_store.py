"""Events in SQLite: order, pages, states, retention, kill, full disk, newer files."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sites.config import Retention
from taidpt.runtime.sites.store import EventQuery, EventStore, NewEvent, StoredEvent
from tests.runtime.sinks.senders import wait_for

EVENT = NewEvent(1000.0, 1000.2, "yard", "", "dog", "on", 1.5, 1.6, lambda: b"jpeg")


def test_events_are_kept_in_order_with_pictures_and_states(tmp_path: Path) -> None:
    told: list[StoredEvent] = []
    with EventStore(tmp_path / "e.sqlite", Retention(days=1e6), told.append) as store:
        other = dataclasses.replace(EVENT, tag="café", camera="gate", picture=None)
        store.put([EVENT, other], {"yard": {"n": 1}})
        store.put([], {"yard": {"n": 2}})
    with EventStore(tmp_path / "e.sqlite", Retention(days=1e6)) as store:
        assert store.events(EventQuery()) == told[::-1]
        assert [event.tag for event in store.events(EventQuery(oldest_first=True))] == [
            "dog",
            "café",
        ]
        assert store.events(EventQuery(tag="café", camera="gate", since=999)) == told[1:]
        assert store.event(1) == told[0]
        assert (store.picture(1), store.picture(2)) == (b"jpeg", None)
        assert store.states()["yard"][1] == {"n": 2}


def test_events_beyond_the_retention_are_removed_and_numbers_are_not_used_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "e.sqlite"
    with EventStore(path, Retention(days=1e6)) as store:
        store.put([EVENT] * 5)
    now = time.time()
    with EventStore(path, Retention(days=1.0)) as store:
        store.put([dataclasses.replace(EVENT, at=now, picture=lambda: bytes(200_000))])
        assert wait_for(lambda: [e.id for e in store.events(EventQuery())] == [6])
    with EventStore(path, Retention(gigabytes=1e-4)) as store:
        assert wait_for(lambda: store.events(EventQuery()) == [])
        assert wait_for(lambda: store.size < 100_000)
        store.put([EVENT])
        assert wait_for(lambda: [e.id for e in store.events(EventQuery())] == [7])


def test_a_killed_process_loses_no_event_that_was_reported(tmp_path: Path) -> None:
    code = (
        "import sys, itertools, dataclasses\n"
        "from pathlib import Path\n"
        "from taidpt.runtime.sites.store import *\n"
        "from taidpt.runtime.sites.config import Retention\n"
        "store = EventStore(Path(sys.argv[1]), Retention(), lambda e: print(e.id, flush=True))\n"
        "for n in itertools.count():\n"
        "    store.put([NewEvent(2e9, 2e9, 'yard', '', 'dog', 'on')], {'yard': {'n': n}})\n"
        "    while store.waiting: pass\n"
    )
    path = tmp_path / "e.sqlite"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        numbers = [int(child.stdout.readline()) for _ in range(50)]
        child.send_signal(signal.SIGKILL)
        numbers += [int(line) for line in child.stdout.read().split()]
    with EventStore(path, Retention()) as store:
        kept = store.events(EventQuery(limit=10_000))
        assert len(kept) >= len(numbers) == numbers[-1]
        assert store.states()["yard"][1]["n"] == kept[0].id - 1  # with its event, in one step


def test_a_full_disk_loses_events_and_nothing_else(tmp_path: Path) -> None:
    told: list[StoredEvent] = []
    with EventStore(tmp_path / "e.sqlite", Retention(days=1e6), told.append) as store:
        store._writer.execute("PRAGMA max_page_count = 12")
        store.put([dataclasses.replace(EVENT, picture=lambda: bytes(1_000_000))])
        assert wait_for(lambda: store.lost == 1)
        assert "full" in store.failure
        assert [event.id for event in told] == [0]
        store.put([dataclasses.replace(EVENT, picture=None)])
        assert wait_for(lambda: store.failure == "")
        assert [event.id for event in told] == [0, 1]


def test_a_store_of_a_newer_version_or_another_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "e.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match=r"schema 99, newer .* update taidpt"):
        EventStore(path, Retention())
    (tmp_path / "text").write_text("not a database, but some text of enough letters\n" * 50)
    with pytest.raises(InputError, match="cannot be used as an event store"):
        EventStore(tmp_path / "text", Retention())
    with pytest.raises(InputError, match="cannot be used as an event store"):
        EventStore(tmp_path / "missing" / "e.sqlite", Retention())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be used as an event store"):
        EventStore(tmp_path / "e.sqlite", Retention())

"""State files that are damaged in any way: used, or refused in one line; never a traceback."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sinks.jsonl import EventsSink
from taidpt.runtime.sources.base import Frame, Source
from taidpt.runtime.stream.stream import Stream, StreamSettings
from taidpt.runtime.tag.state_file import StateFile
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_bundle

# Values that break arithmetic, types, memory or recursion.
HOSTILE: list[Any] = [
    None, True, -1, 0, 2**63, 1e308, -1e308, 1e999, -1e999, float("nan"), "", "x", "1e5", "\ud800",
    [], [[]], [None], {}, {"a": 1}, ["a", "a"], [1e999], "\x00", "9" * 400, list(range(1000)),
]  # fmt: skip


class Camera(Source):
    """A live source of a few frames in which tags go on and off."""

    name, live, threaded = "camera", True, False

    def frames(self) -> Iterator[Frame]:
        for index in range(40):
            pixels = np.full((16, 16, 3), 255 * (index // 10 % 2), np.uint8)
            yield Frame(pixels, index / 10, index, self.name)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tagger]:
    path = tmp_path_factory.mktemp("state") / "tiny.taidpt"
    with Tagger.load(tiny_bundle(path, TinySpec(thresholds=(1.0,))), device="cpu") as loaded:
        yield loaded


def new_stream(tagger: Tagger) -> Stream:
    return Stream(tagger, Camera(), StreamSettings())


@pytest.fixture(scope="module")
def document(tagger: Tagger, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A real state with events that were not written."""
    path = tmp_path_factory.mktemp("document") / "state"
    stream = new_stream(tagger)
    state = StateFile(path, stream)
    events = [event for moment in stream for event in moment.events]
    assert len(events) > 2
    state.save({"camera": events[-2:]})
    loaded: dict[str, Any] = json.loads(path.read_bytes())
    loaded["sources"]["camera"]["leaving"] = {"gone": {"smoothed": 1, "since_s": 0, "peak": 2}}
    return loaded


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key of a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from places(inner)


def load_and_run(path: Path, tagger: Tagger, events_path: Path) -> bool:
    """Whether the file was used; then its events and the next ones are written."""
    stream = new_stream(tagger)
    try:
        state = StateFile(path, stream)
    except InputError as error:
        line = str(error)
    else:
        sink = EventsSink(events_path)
        for name, events in state.unwritten.items():
            sink.resend(name, events)
        for moment in stream:
            sink.write(moment)
        sink.close()
        state.save()
        return True
    assert str(path) in line
    assert len(line) < len(str(path)) + 300
    assert "\n" not in line
    return False


def test_every_value_of_a_state_replaced_by_every_hostile_one(
    tagger: Tagger, document: dict[str, Any], tmp_path: Path
) -> None:
    chance = random.Random(0)
    used = tried = 0
    for number in range(len(list(places(document)))):
        for value in [*chance.sample(HOSTILE, 3), "removed"]:
            changed = copy.deepcopy(document)
            container, key = list(places(changed))[number]
            if value == "removed" and isinstance(container, dict):
                del container[key]
            else:
                container[key] = value
            (tmp_path / "state").write_text(json.dumps(changed))
            used += load_and_run(tmp_path / "state", tagger, tmp_path / "events")
            tried += 1
    assert tried > 200
    assert 0 < used < tried


def test_damaged_bytes_of_a_state(tagger: Tagger, document: dict[str, Any], tmp_path: Path) -> None:
    chance = random.Random(1)
    whole = json.dumps(document).encode()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        cut = chance.choice([len(data), chance.randrange(len(data))])
        (tmp_path / "state").write_bytes(data[:cut])
        load_and_run(tmp_path / "state", tagger, tmp_path / "events")


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 5000, b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"null", b"\xff\xfe{}"],
)
def test_what_is_no_state_is_refused(tagger: Tagger, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "state").write_bytes(data)
    assert not load_and_run(tmp_path / "state", tagger, tmp_path / "events")


def test_what_is_no_regular_file_is_refused_without_waiting(tagger: Tagger, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(1 << 40)
    for name in ("fifo", "folder", "large"):
        assert not load_and_run(tmp_path / name, tagger, tmp_path / "events")
    assert not load_and_run(Path("/dev/zero"), tagger, tmp_path / "events")

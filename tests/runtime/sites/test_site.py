"""Cameras of a site: files that repeat, cameras that never come or hang, restarts."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.serve.server import open_group
from taidpt.runtime.sites.camera import CameraSource
from taidpt.runtime.sites.config import CameraConfig, SiteConfig
from taidpt.runtime.sites.score_history import ScoreHistory
from taidpt.runtime.sites.site import Site
from taidpt.runtime.sites.store import EventQuery, EventStore, NewEvent
from taidpt.runtime.sources.base import SourceOptions
from tests.runtime.sinks.senders import wait_for
from tests.runtime.tiny import TinySpec, tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = TinySpec(bank_as="input", thresholds=(-9.0, 9.0))
    return tiny_bundle(tmp_path_factory.mktemp("site") / "site.taidpt", spec)


@contextlib.contextmanager
def site_of(bundle: Path, data: Path, *sources: str) -> Iterator[Site]:
    cameras = tuple(CameraConfig(f"cam{number}", text) for number, text in enumerate(sources, 1))
    config = SiteConfig(str(bundle), cameras, data=str(data), max_fps=10.0, min_on=0.0)
    with (
        open_group(config.models[0], config) as group,
        EventStore(data / "events.sqlite", config.retention) as store,
        Site(config, [group], store, []) as site,
    ):
        site.start()
        yield site


def test_a_file_is_played_at_its_own_speed_and_again(video_path: Path) -> None:
    source = CameraSource("cam", str(video_path), SourceOptions(max_fps=10.0))
    begun_s = time.monotonic()
    times = [frame.time_s for frame, _ in zip(source, range(45), strict=False)]  # 40 in the video
    source.close()
    assert times == sorted(times)
    assert times[-1] <= time.monotonic() - begun_s
    assert times[-1] >= 4.2
    assert source.reconnects == 1


def test_a_camera_that_never_comes_and_one_that_hangs_take_nothing_from_the_others(
    bundle: Path, video_path: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        hanging = f"http://joe:s3cret@127.0.0.1:{silent.getsockname()[1]}/a.ts"
        missing = f"rtsp://joe:s3cret@127.0.0.1:{closed.getsockname()[1]}/1"
        with site_of(bundle, tmp_path, hanging, missing, str(video_path)) as site:
            first, second, third = site.cameras.values()
            assert wait_for(lambda: third.tagged > 10)
            assert wait_for(lambda: second.source.status.error != "")
            assert (first.tagged, second.tagged) == (0, 0)
            assert second.source.status.state == "connecting"
            assert site.ready
            for camera in (first, second):
                assert "s3cret" not in f"{camera.source.status} {camera.source.name}"


def test_an_event_is_stored_with_the_state_of_its_camera_alone(
    bundle: Path, video_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states of all are saved from time to time: many cameras have many events."""
    monkeypatch.setattr("taidpt.runtime.sites.site._STATE_S", 1e9)
    stored: list[tuple[set[str], set[str]]] = []
    put = EventStore.put

    def record(store: EventStore, events: Sequence[NewEvent], states: Mapping[str, Any]) -> None:
        stored.append(({event.camera for event in events}, set(states)))
        put(store, events, states)

    monkeypatch.setattr(EventStore, "put", record)
    with site_of(bundle, tmp_path, str(video_path), str(video_path)) as site:
        assert wait_for(lambda: all(camera.tagged for camera in site.cameras.values()))
    (first, everything), (second, own), last = stored  # each camera's tag goes on once
    assert {*first, *second} == everything == {"cam1", "cam2"}
    assert own == second
    assert last == (set(), everything)  # at the end


def test_a_tag_that_was_on_before_a_restart_goes_on_once(bundle: Path, tmp_path: Path) -> None:
    """The picture never changes, so each tag that is on goes on in the first run alone."""
    from PIL import Image

    Image.fromarray(np.full((96, 128, 3), (200, 30, 30), np.uint8)).save(tmp_path / "still.png")
    for _ in range(2):
        with site_of(bundle, tmp_path, str(tmp_path / "still.png")) as site:
            assert wait_for(lambda camera=site.cameras["cam1"]: camera.tagged > 3)
            on = site.cameras["cam1"].latest.on
            assert on
    with EventStore(tmp_path / "events.sqlite", site.config.retention) as store:
        events = store.events(EventQuery())
    assert sorted(event.tag for event in events) == sorted(on)


@pytest.mark.parametrize(
    ("camera", "expected"),
    [
        (("a/b", "x.mp4"), "an id has"),
        (("", "x.mp4"), "an id has"),
        (("a", "missing.mp4"), "no such file"),
        (("a", "csi://0"), "for a CSI camera give"),
    ],
)
def test_a_camera_that_cannot_be_is_refused_at_once(camera: tuple[str, str], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        CameraConfig(*camera)


def test_scores_of_the_last_hour_follow_the_tags() -> None:
    history = ScoreHistory()
    for second in range(4000):
        assert history.wants(float(second))
        history.add(float(second), ("a", "b"), np.array([second, -second], np.float32))
    assert not history.wants(4000.5 - 1)
    assert sorted(history.scores("a")) == list(range(400, 4000))
    history.add(4000.0, ("b", "c"), np.array([7.0, 8.0], np.float32))
    assert len(history.scores("a")) == 0
    assert sorted(history.scores("c")) == [8.0]
    assert len(history.scores("b")) == 3600

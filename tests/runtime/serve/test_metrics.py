"""Metrics, health, readiness, and what systemd is told."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from taidpt.runtime.serve.systemd import Systemd
from tests.runtime.serve.server import Server
from tests.runtime.sinks.senders import wait_for
from tests.support import REPOSITORY


def samples(server: Server) -> dict[tuple[str, str], float]:
    """Name and labels of each sample → value."""
    answer = server.ask("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.body.decode())
    return {
        (sample.name, ",".join(sorted(sample.labels.values()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_count_what_happens(server: Server) -> None:
    assert wait_for(lambda: server.site.cameras["cam2"].tagged > 20)
    first = samples(server)
    assert wait_for(lambda: samples(server)["taidpt_tagged_frames_total", "cam2"] > 30)
    last = samples(server)
    for name in ("taidpt_frames_total", "taidpt_tagged_frames_total"):
        assert 0 < first[name, "cam2"] <= last[name, "cam2"]
    assert last["taidpt_camera_up", "cam1"] == 1
    assert last["taidpt_stage_seconds_count", "inference"] > 0
    assert last["taidpt_stage_seconds_bucket", "+Inf,inference"] > 0
    assert last["taidpt_store_bytes", ""] > 0
    assert last["taidpt_events_lost_total", ""] == 0
    assert last["process_resident_memory_bytes", ""] > 1e6
    assert any(name == "taidpt_events_total" and value > 0 for (name, _), value in last.items())


def test_the_dashboard_asks_for_metrics_that_exist(server: Server) -> None:
    dashboard = json.loads((REPOSITORY / "examples/service/grafana.json").read_text("utf-8"))
    text = server.ask("/metrics").body.decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) >= 6
    for expression in asked:
        assert any(name in expression for name in names if name.startswith(("taidpt", "process")))


def test_every_key_of_the_dashboard_is_one_of_grafanas_own_types() -> None:
    register_default_plugins()  # the types of panels and of Prometheus's queries
    dashboard = json.loads((REPOSITORY / "examples/service/grafana.json").read_text("utf-8"))

    def lost(document: Any) -> list[str]:
        """Places that Grafana's types do not give back."""
        back = json.loads(JSONEncoder().encode(Dashboard.from_json(document)))
        return list(_differences(document, back, ""))

    assert lost(dashboard) == []
    dashboard["panels"][1]["targets"][0]["expression"] = "up"  # it is called expr
    assert lost(dashboard) == ["/panels/1/targets/0/expression"]


def _differences(document: Any, back: Any, place: str) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            known = isinstance(back, dict) and key in back
            yield from _differences(value, back[key] if known else None, f"{place}/{key}")
    elif isinstance(document, list) and isinstance(back, list) and len(document) == len(back):
        for index, pair in enumerate(zip(document, back, strict=True)):
            yield from _differences(*pair, f"{place}/{index}")
    elif document != back:
        yield place


def test_health_and_readiness_are_told_apart(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.ask("/healthz").status == server.ask("/readyz").status == 200
    monkeypatch.setattr(type(server.site), "ready", property(lambda _: False))
    assert server.ask("/healthz").status == 200
    assert server.ask("/readyz").status == 503


def test_systemd_hears_of_readiness_life_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        well = True
        with Systemd(lambda: well):
            assert manager.recv(100) == b"READY=1"
            assert manager.recv(100) == b"WATCHDOG=1"
            well = False
        messages = []
        while not messages or messages[-1] != b"STOPPING=1":
            messages.append(manager.recv(100))
        assert len(messages) < 5

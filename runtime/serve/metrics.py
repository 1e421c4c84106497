"""What Prometheus reads: counts of the cameras and seconds of each stage, read when asked for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from taidpt.runtime.measuring.power import find_cards, find_rails
from taidpt.runtime.measuring.profile import Profile
from taidpt.runtime.sites.site import Camera, Site
from taidpt.runtime.stream.moment import Moment

__all__ = ["Metrics"]

# From half a millisecond, a resize of a small frame, to five seconds, a camera that stutters; each
# bucket is about twice the one before, which is what a dashboard's percentiles need.
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class _ObservedProfile(Profile):
    """A profile whose durations also go into a histogram."""

    def __init__(self, histogram: Histogram) -> None:
        super().__init__()
        self._histogram = histogram

    def add(self, stage: str, seconds: float) -> None:
        """Add one duration of a stage."""
        super().add(stage, seconds)
        self._histogram.labels(stage).observe(seconds)


class Metrics:
    """The metrics of a site in a registry of their own.

    Attributes:
        media_type: the content type of `text`.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, site: Site) -> None:
        """Begin to observe a site that has not started."""
        self._registry = CollectorRegistry()
        stages = Histogram(
            "taidpt_stage_seconds",
            "Seconds of each stage of a frame.",
            ("stage",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        for group in site.groups.values():
            group.stream.profile = _ObservedProfile(stages)
        events: Counter[tuple[str, str, str]] = Counter()

        def count(camera: Camera, moment: Moment) -> None:
            for event in moment.events:
                events[camera.id, event.tag, event.kind] += 1

        site.listeners.append(count)
        self._registry.register(_SiteCollector(site, events))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _SiteCollector(Collector):
    """Counts that the site holds anyway."""

    def __init__(self, site: Site, events: Counter[tuple[str, str, str]]) -> None:
        self._site, self._events = site, events
        self._rails = [*find_rails(Path("/sys/class/hwmon")), *find_cards()]
        self._began = time.time()

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        yield from self._cameras()
        yield from self._store()
        age = GaugeMetricFamily(
            "taidpt_bank_age_seconds", "Seconds since the tags changed.", labels=("bundle",)
        )
        tags = GaugeMetricFamily("taidpt_tags", "Tags in the bank.", labels=("bundle",))
        for name, group in self._site.groups.items():
            edits = group.edits.edits
            age.add_metric((name,), time.time() - (edits[-1].at if edits else self._began))
            tags.add_metric((name,), len(group.tagger.names))
        yield age
        yield tags
        events = CounterMetricFamily(
            "taidpt_events", "Tags that went on or off.", labels=("camera", "tag", "kind")
        )
        for labels, count in tuple(self._events.items()):
            events.add_metric(labels, count)
        yield events
        power = GaugeMetricFamily("taidpt_power_watts", "Power by supply rail.", labels=("rail",))
        for rail in self._rails:
            try:
                power.add_metric((rail.name,), rail.watts())
            except Exception:
                continue
        yield power

    def _cameras(self) -> Iterator[Metric]:
        cameras = self._site.cameras.values()
        counts: dict[str, tuple[str, Callable[[Camera], float]]] = {
            "taidpt_frames": ("Frames that a camera gave.", lambda c: c.source.status.frames),
            "taidpt_tagged_frames": ("Frames that were tagged.", lambda c: c.tagged),
            "taidpt_dropped_frames": (
                "Frames that newer ones replaced.",
                lambda c: self._site.group_of(c).dropped(c.id),
            ),
            "taidpt_reconnects": (
                "Times a camera was opened again.",
                lambda c: c.source.reconnects,
            ),
        }
        for name, (text, count) in counts.items():
            metric = CounterMetricFamily(name, text, labels=("camera",))
            for camera in cameras:
                metric.add_metric((camera.id,), count(camera))
            yield metric
        running = GaugeMetricFamily("taidpt_camera_up", "Whether it runs.", labels=("camera",))
        for camera in cameras:
            running.add_metric((camera.id,), camera.source.status.state == "running")
        yield running

    def _store(self) -> Iterator[Metric]:
        store = self._site.store
        for name, text, value in (
            ("taidpt_store_bytes", "Size of the event store.", store.size),
            ("taidpt_store_waiting", "Events that are not written yet.", store.waiting),
        ):
            gauge = GaugeMetricFamily(name, text)
            gauge.add_metric((), value)
            yield gauge
        lost = CounterMetricFamily("taidpt_events_lost", "Events that could not be written.")
        lost.add_metric((), store.lost)
        yield lost

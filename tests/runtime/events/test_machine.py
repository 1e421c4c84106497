"""Scores to events: by hand, against a plain reference, and the same at any batch size."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Event, EventMachine, EventSettings, Interval, timeline


def run(scores: list[float], times: list[float] | None = None, **options: float) -> list[Event]:
    values = {"on": 1.0, "off": 0.5, **options}
    machine = EventMachine(["a"], EventSettings(**values))
    return machine.update(times or list(range(len(scores))), np.array(scores)[:, None])


def marks(events: list[Event]) -> list[tuple[str, float, float]]:
    return [(event.kind, event.time_s, event.decided_s) for event in events]


def test_hysteresis_holds_between_the_thresholds() -> None:
    events = run([0, 0.9, 1.0, 0.6, 0.5, 0.49, 0.8, 1.2])
    assert marks(events) == [("on", 2, 2), ("off", 5, 5), ("on", 7, 7)]


def test_least_durations_drop_blips_and_bridge_gaps() -> None:
    blip = run([0, 2, 0, 0, 2, 2, 2, 0, 2, 2, 0, 0, 0], min_on_s=2, min_off_s=2)
    assert marks(blip) == [("on", 4, 6), ("off", 10, 12)]


def test_an_event_knows_its_scores() -> None:
    on, off = run([0, 1.5, 3, 2, 0.2])
    assert (on.score, on.peak, off.score, off.peak) == (1.5, 1.5, pytest.approx(0.2), 3)
    assert on.to_dict()["tag"] == "a"


def test_smoothing_is_by_time_and_not_by_frames() -> None:
    """The same step seen at 10 and at 50 frames a second goes on at the same time."""

    def time_on(rate: int) -> float:
        times = [index / rate for index in range(4 * rate)]
        scores = [0.0 if time < 1 else 2.0 for time in times]
        return run(scores, times, smoothing_s=0.5)[0].time_s

    expected = 1 + 0.5 * math.log(2)
    assert time_on(50) == pytest.approx(expected, abs=0.04)
    assert time_on(10) == pytest.approx(expected, abs=0.2)


def test_each_tag_has_its_own_settings_and_band() -> None:
    machine = EventMachine(["a", "b"], EventSettings(on=[1, 5], off=[0.5, 1]))
    events = machine.update([0.0], np.array([[2.0, 2.0]]))
    assert [event.tag for event in events] == ["a"]
    assert machine.on.tolist() == [True, False]
    assert machine.uncertain.tolist() == [False, True]


def test_uncertain_band_includes_the_off_threshold_and_excludes_the_on_threshold() -> None:
    below_off, below_on = np.nextafter([0.5, 1.0], 0.0)
    machine = EventMachine(["a", "b", "c", "d"], EventSettings(on=1.0, off=0.5))
    machine.update([0.0], np.array([[below_off, 0.5, below_on, 1.0]]))
    assert machine.uncertain.tolist() == [False, True, True, False]


def reference(times: list[float], scores: np.ndarray, options: dict[str, float]) -> list[Any]:
    """One tag at a time, in plain Python."""
    found = []
    for tag in range(scores.shape[1]):
        y = raw_since = 0.0
        raw = state = False
        for step, time in enumerate(times):
            score = float(scores[step, tag])
            if step == 0 or options["smoothing_s"] == 0:
                y = score
            else:
                weight = 1 - math.exp(-(time - times[step - 1]) / options["smoothing_s"])
                y += weight * (score - y)
            before = raw
            raw = y >= 1.0 or (raw and y >= 0.5)
            raw_since = time if raw != before else raw_since
            least = options["min_on_s"] if raw else options["min_off_s"]
            if raw != state and time - raw_since + 1e-9 >= least:
                state = raw
                found.append((step, tag, "on" if state else "off", raw_since))
    return sorted(found)


cases = st.integers(0, 2**32 - 1)
lengths = st.integers(1, 60)
durations = st.sampled_from([0.0, 0.1, 0.35, 1.0])


@settings(max_examples=60, deadline=None)
@given(cases, lengths, durations, durations, durations)
def test_events_equal_the_plain_reference(
    seed: int, length: int, smoothing_s: float, min_on_s: float, min_off_s: float
) -> None:
    generator = np.random.default_rng(seed)
    times = np.cumsum(generator.choice([0.0, 0.04, 0.1, 0.5], length)).tolist()
    scores = generator.normal(0.75, 0.6, (length, 3))
    options = {"smoothing_s": smoothing_s, "min_on_s": min_on_s, "min_off_s": min_off_s}
    machine = EventMachine("xyz", EventSettings(on=1.0, off=0.5, **options))
    found = []
    for step, time in enumerate(times):
        found.extend(
            (step, "xyz".index(event.tag), event.kind, event.time_s)
            for event in machine.update([time], scores[step : step + 1])
        )
    assert found == reference(times, scores, options)


@settings(max_examples=60, deadline=None)
@given(cases, lengths, st.lists(st.integers(1, 9), min_size=1, max_size=9), durations)
def test_batch_size_and_restarts_change_nothing(
    seed: int, length: int, sizes: list[int], least_s: float
) -> None:
    generator = np.random.default_rng(seed)
    times = np.cumsum(generator.choice([0.0, 1 / 30, 0.1], length))
    scores = generator.normal(0.75, 0.6, (length, 4)).astype(np.float32)
    choice = EventSettings(
        on=1.0, off=[0.5, 0.6, 0.7, 0.8], smoothing_s=0.2, min_on_s=least_s, min_off_s=least_s
    )
    whole = EventMachine("abcd", choice)
    expected = whole.update(times, scores)
    machine, found, start, turn = EventMachine("abcd", choice), [], 0, 0
    while start < length:
        stop = start + sizes[turn % len(sizes)]
        found.extend(machine.update(times[start:stop], scores[start:stop]))
        saved = json.loads(json.dumps(machine.save_state()))
        machine = EventMachine("abcd", choice)
        machine.load_state(saved)
        start, turn = stop, turn + 1
    assert found == expected
    assert machine.save_state() == whole.save_state()


def test_a_timeline_pairs_events() -> None:
    events = run([0, 2, 2, 0, 0, 2, 3])
    assert timeline(events, 6.0) == (
        Interval("a", 1.0, 3.0, 2.0),
        Interval("a", 5.0, 6.0, 2.0, open=True),
    )
    with pytest.raises(InputError, match="do not alternate"):
        timeline(events[1:], 6.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": 1.0, "off": 2.0}, "off threshold must not exceed"),
        ({"on": 1.0, "off": 0.0, "smoothing_s": -1.0}, "smoothing_s must not be negative"),
        ({"on": [1.0, 2.0], "off": 0.0}, "on should be one number or 1"),
        ({"on": math.nan, "off": 0.0}, "on holds a value that is not finite"),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EventMachine(["a"], EventSettings(**options))


def test_wrong_input_changes_nothing() -> None:
    machine = EventMachine(["a"], EventSettings(on=1.0, off=0.5))
    machine.update([1.0], np.array([[2.0]]))
    before = machine.save_state()
    wrong = [
        ([2.0], [[math.nan]], "not finite"),
        ([math.inf], [[1.0]], "not finite"),
        ([0.5], [[1.0]], "times must not decrease"),
        ([2.0, 1.5], [[1.0], [1.0]], "times must not decrease"),
        ([2.0], [[1.0, 2.0]], r"scores \[N, 1\]"),
    ]
    for times, scores, message in wrong:
        with pytest.raises(InputError, match=message):
            machine.update(times, np.array(scores))
    assert machine.save_state() == before


def test_wrong_state_is_refused() -> None:
    machine = EventMachine(["a"], EventSettings(on=1.0, off=0.5))
    state = machine.save_state()
    for change, message in [
        ({"names": ["a", "b"]}, "smoothed should be one number or 2"),
        ({"schema": 9}, "update taidpt"),
        ({"smoothed": [1, 2]}, "smoothed should be one number or 1"),
        ({"peak": "x"}, "damaged event state"),
    ]:
        with pytest.raises(InputError, match=message):
            machine.load_state({**state, **change})
    with pytest.raises(InputError, match="damaged event state"):
        machine.load_state({})

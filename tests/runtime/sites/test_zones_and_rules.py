"""Zones score the patches inside them; rules fire once, at their hours."""

from __future__ import annotations

import dataclasses
from datetime import datetime

import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.results import TagBatch
from taidpt.runtime.sites.config import RuleConfig, ZoneConfig
from taidpt.runtime.sites.rules import Rule, is_scheduled
from taidpt.runtime.sites.zones import Zone, patches_inside
from taidpt.runtime.sources.base import Frame
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.stream.stream import StreamSettings
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import NAMES, TEMPERATURE, TinySpec

SPEC = TinySpec()
LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
WHOLE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
SETTINGS = StreamSettings(smoothing_s=0.0, min_on_s=0.0, min_off_s=0.0)


def moment_of(tagger: Tagger, seed: int, time_s: float = 0.0) -> Moment:
    image = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    return Moment(Frame(image, time_s, 0, "yard"), tagger(image), (), ())


def test_patches_are_chosen_by_their_centres() -> None:
    inside = patches_inside(LEFT, (2, 4), ((0, 0),), (0, 0, 80, 40), (40, 80))
    assert inside.reshape(2, 4).tolist() == [[True, True, False, False]] * 2
    # the model sees the middle half of a wide frame alone
    inside = patches_inside(LEFT, (2, 4), ((0, 0),), (40, 0, 120, 40), (40, 160))
    assert inside.reshape(2, 4).tolist() == [[True, True, False, False]] * 2
    triangle = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    inside = patches_inside(triangle, (4, 4), ((0, 0),), (0, 0, 40, 40), (40, 40))
    assert inside.reshape(4, 4).sum(axis=1).tolist() == [3, 2, 1, 0]
    # two tiles side by side
    inside = patches_inside(LEFT, (2, 2), ((0, 0), (0, 2)), (0, 0, 80, 40), (40, 80))
    assert inside.tolist() == [True] * 4 + [False] * 4


def test_a_zone_scores_as_if_the_local_branch_saw_its_patches_alone(tagger: Tagger) -> None:
    moment = moment_of(tagger, 3)
    whole = Zone(ZoneConfig("all", "yard", WHOLE), tagger, SETTINGS)
    np.testing.assert_allclose(whole.scores(moment), moment.result.scores, atol=1e-5)
    left = Zone(ZoneConfig("left", "yard", LEFT, ("dog", "café")), tagger, SETTINGS)
    bank, features = tagger.class_bank, moment.result.patch_features.reshape(4, 4, -1)
    cosines = features[:, :2].reshape(8, -1) @ bank.local_embeddings.T
    weights = np.exp(TEMPERATURE * cosines)
    local = (weights * cosines).sum(axis=0) / weights.sum(axis=0)
    whole_cosines = moment.result.global_features @ bank.global_embeddings.T
    expected = bank.scale * (whole_cosines + local) / 2 + bank.bias
    np.testing.assert_allclose(left.scores(moment), expected[[1, 4]], atol=1e-4)


def test_events_of_a_zone_follow_thresholds_and_changed_tags(tagger: Tagger) -> None:
    zone = Zone(ZoneConfig("left", "yard", LEFT, ("dog", "cat")), tagger, SETTINGS)
    moment = moment_of(tagger, 3)
    sure = tagger.vocabulary.with_threshold(-9.0, -9.0)
    result = dataclasses.replace(moment.result, vocabulary=sure)
    events = zone.update(dataclasses.replace(moment, result=result))
    assert [(event.tag, event.kind) for event in events] == [("dog", "on"), ("cat", "on")]
    assert zone.on == ("dog", "cat")
    later = moment_of(tagger, 3, 1.0)
    shorter = type(sure)(NAMES[1:], sure_thresholds(4), (None,) * 4, sure.grid, rows_of(sure)[1:])
    scores = TagBatch(
        {
            "scores": later.result.scores[None, 1:],
            "patch_features": later.result.patch_features[None],
        },
        shorter,
    )
    events = zone.update(dataclasses.replace(later, result=scores[0]))
    assert [(event.tag, event.kind) for event in events] == [("cat", "off")]


def sure_thresholds(count: int) -> tuple[object, ...]:
    from taidpt.runtime.bank.thresholds import Threshold

    return (Threshold(-9.0, -9.0, "given"),) * count


def rows_of(vocabulary: object) -> np.ndarray:
    return np.array([vocabulary.local_row(index) for index in range(5)])


def test_a_zone_of_an_unknown_tag_or_without_a_patch_is_one_line(tagger: Tagger) -> None:
    with pytest.raises(InputError, match="no tag 'dgo'; did you mean dog"):
        Zone(ZoneConfig("left", "yard", LEFT, ("dgo",)), tagger, SETTINGS)
    corner = ((0.0, 0.0), (0.05, 0.0), (0.0, 0.05))
    zone = Zone(ZoneConfig("tiny", "yard", corner), tagger, SETTINGS)
    with pytest.raises(InputError, match="the model sees no patch of it"):
        zone.update(moment_of(tagger, 1))


def test_a_rule_fires_once_after_its_time_and_again_after_a_break() -> None:
    rule = Rule(RuleConfig("r", "dog", without=("leash",), for_=2.0))
    on = [("dog",), ("dog",), ("dog",), ("dog",), (), ("dog",), ("dog", "leash"), ("dog",)]
    on += [("dog",), ("dog",)]
    fired = [at for at, tags in enumerate(on) if rule.fires("yard", float(at), tags)]
    assert fired == [2, 9]
    assert Rule(RuleConfig("r", "dog")).fires("yard", 0.0, ("dog",))
    rule = Rule(RuleConfig("r", "dog", camera="yard", zone="gate"))
    assert rule.concerns("yard", "gate")
    assert not rule.concerns("yard", "")
    assert not rule.concerns("door", "gate")


@pytest.mark.parametrize(
    ("between", "days", "moment", "expected"),
    [
        (None, (), "2026-11-28 12:00", True),  # a Saturday
        (None, ("sat",), "2026-11-28 12:00", True),
        (None, ("sun", "mon"), "2026-11-28 12:00", False),
        ("08:00-17:30", (), "2026-11-28 17:29", True),
        ("08:00-17:30", (), "2026-11-28 17:30", False),
        ("22:00-06:00", (), "2026-11-28 23:00", True),
        ("22:00-06:00", (), "2026-11-28 05:59", True),
        ("22:00-06:00", (), "2026-11-28 12:00", False),
        ("22:00-06:00", ("fri",), "2026-11-28 05:00", True),  # the night of Friday
        ("22:00-06:00", ("sat",), "2026-11-28 05:00", False),
        ("22:00-6:00", ("sat",), "2026-11-28 22:00", True),
    ],
)
def test_schedules(between: str | None, days: tuple[str, ...], moment: str, expected: bool) -> None:
    rule = RuleConfig("r", "dog", between=between, days=days)
    assert is_scheduled(rule, datetime.fromisoformat(moment)) is expected

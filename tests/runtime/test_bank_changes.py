"""Banks that lose tags and gain some: what was learned of the others stays with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from taidpt.runtime.bank.class_bank import ClassBank, Threshold, join_banks
from taidpt.runtime.bank.probability_maps import MapJson, ProbabilityMaps
from taidpt.runtime.bank.thresholds import Thresholds

SHORT: MapJson = {"scores": [1.0], "probabilities": [0.5], "band": [0.1, 0.9], "state": "seen"}
LONG: MapJson = {"scores": [0.0, 2.0, 3.0], "probabilities": [0.1, 0.2, 1.0], "share": 0.25}
BARE: MapJson = {"scores": [0.5, 1.5], "probabilities": [0.0, 1.0]}


def bank(names: str, maps: list[MapJson | None], **others: Any) -> ClassBank:
    rows = np.eye(8, dtype=np.float32)[: len(maps)]
    thresholds = [Threshold(index + 0.5, index, f"of {index}") for index in range(len(maps))]
    return ClassBank.from_rows(
        tuple(names), rows, rows.copy(), thresholds=thresholds, probabilities=maps, **others
    )


@pytest.mark.parametrize(
    "maps",
    [
        [SHORT, None, LONG, BARE],
        [None, SHORT, SHORT, None],
        [None] * 4,
        [LONG, LONG, LONG, LONG],
    ],
)
@pytest.mark.parametrize("names", ["a", "db", "dcba", "bd"])
def test_chosen_tags_keep_their_thresholds_and_maps(names: str, maps: list[MapJson | None]) -> None:
    whole = bank("abcd", maps)
    chosen = whole.select(names)
    places = ["abcd".index(name) for name in names]
    assert list(chosen.thresholds) == [whole.thresholds[place] for place in places]
    assert list(chosen.probabilities) == [maps[place] for place in places]


@pytest.mark.parametrize("first", [[SHORT, None], [None, LONG], [None, None], [SHORT, SHORT]])
@pytest.mark.parametrize("second", [[SHORT], [None], [BARE, LONG, None]])
def test_joined_banks_keep_theirs(
    first: list[MapJson | None], second: list[MapJson | None]
) -> None:
    one, two = bank("ab", first), bank("xyz"[: len(second)], second)
    joined = join_banks(one, two)
    assert list(joined.thresholds) == [*one.thresholds, *two.thresholds]
    assert list(joined.probabilities) == [*first, *second]
    assert joined.select(two.names).probabilities == two.probabilities


def test_changing_a_bank_makes_no_objects_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five thousand calibrated tags took a tenth of a second, with frames waiting."""
    whole, more = bank("abcd", [SHORT, None, LONG, BARE]), bank("xy", [LONG, None])

    def refuse(*_: object) -> None:
        raise AssertionError("a row was made")

    for table in (ProbabilityMaps, Thresholds):
        monkeypatch.setattr(table, "_row", refuse)
    joined = join_banks(whole.select("dcb"), more)
    assert joined.names == ("d", "c", "b", "x", "y")

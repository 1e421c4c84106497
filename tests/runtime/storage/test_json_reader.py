"""Strict JSON: what is refused, and what its errors say."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from taidpt.runtime.errors import BundleError
from taidpt.runtime.storage.json_reader import JsonReader, parse_object

FAR = "9" * 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"free": {"count": ' + FAR + "}}", "an integer of 400 digits"),
        ('{"a": [1,-' + FAR + "]}", "an integer of 401 digits"),
        ('{"a": 18446744073709551616}', "an integer of 20 digits"),
        ('{"a": 1e999}', "is too large"),
        ('{"a": [0.5,-2.5E+4000]}', "is too large"),
        ('{"hash": "f7e12345678901234567890", "a": 7.25e0400}', "is too large"),
        ('{"hash": "f7e12345678901234567890", "a": -98765432109876543210}', "of 21 digits"),
        ('{"a": ' + FAR + ".5}", "is too large"),
        ('{"a": NaN}', "NaN is not allowed"),
        ('{"a": [-Infinity]}', "-Infinity is not allowed"),
        ('{"name": "\\ud800"}', "half of a surrogate pair"),
        ('{"\\uDFFF": 1}', "half of a surrogate pair"),
        (b'{"name": "\xed\xa0\x80"}', "utf-8"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[]", "expected a JSON object, got list"),
        ('{"a" 1}', "line 1 column 6"),
    ],
)
def test_other_json_is_refused_in_one_line(text: str | bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        parse_object(text, "m.json")
    assert str(caught.value).startswith("m.json: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_ordinary_documents_are_read() -> None:
    text = '{"pair": "\\ud83d\\ude00", "big": 9223372036854775807, "tiny": 1e-300, "x": "e100 é"}'
    expected: dict[str, object] = {"pair": "😀", "big": 2**63 - 1, "tiny": 1e-300, "x": "e100 é"}
    hashes = ["f" + "1234567890" * 3, "ae0123", "9" * 100_000 + "x", "0e1234"]
    text = text[:-1] + f', "long": 0.{"3" * 40}, "hashes": {json.dumps(hashes)}' + "}"
    expected |= {"long": 1 / 3, "hashes": hashes}
    assert parse_object(text, "m.json") == expected
    assert parse_object(b"\xef\xbb\xbf" + text.encode(), "m.json") == expected


@dataclass(frozen=True)
class Part:
    name: str
    count: int
    share: float
    flag: bool
    words: tuple[str, ...]
    extra: int = 0


GOOD = {"name": "x", "count": 1, "share": 2, "flag": False, "words": ["a"]}


def test_a_dataclass_is_built_by_its_annotations() -> None:
    part = JsonReader({**GOOD, "later": 1}, "m.json").build(Part, extra=7)
    assert part == Part("x", 1, 2.0, False, ("a",), 7)
    assert isinstance(part.share, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "'count' should be a whole number of at least 1, got 0"),
        ({"count": True}, "'count' should be a whole number of at least 1, got true"),
        ({"share": 10**400}, "'share' should be a finite number, got 1000"),
        ({"share": float("inf")}, "'share' should be a finite number"),
        ({"flag": 1}, "'flag' should be true or false, got 1"),
        ({"words": "a"}, "'words' should be a list of strings"),
        ({"name": None}, "'name' should be a string, got null"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(change: dict[str, object], message: str) -> None:
    with pytest.raises(BundleError, match=f"m.json, part: {message}"):
        JsonReader({"part": {**GOOD, **change}}, "m.json").child("part").build(Part, extra=0)

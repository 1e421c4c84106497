"""A bank file: numbers are kept exactly, older schemas load, each fault gives one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from taidpt.runtime.bank.bank_file import is_bank, map_local_embeddings
from taidpt.runtime.bank.class_bank import ClassBank, Threshold
from taidpt.runtime.errors import BundleError
from tests.runtime.bank.test_class_bank import rows
from tests.support import REPOSITORY

LEARNED = {"band": [0.1, 0.30000000000000004], "state": "seen", "sureness": "low", "share": 0.1}
RAMP = {"scores": [-1.0, 0.1, 2.5], "probabilities": [0.0, 1 / 3, 1.0], **LEARNED}
STEP = {"scores": [0.5], "probabilities": [0.25], **LEARNED, "band": [1e-17, 2.0]}

Tensors = dict[str, np.ndarray]


def bank() -> ClassBank:
    return ClassBank.from_rows(
        ("cat", "dog", "café"),
        rows(),
        rows(seed=1),
        thresholds=[Threshold(i + 1 / 3, i + 0.1, f"source {i}") for i in range(3)],
        probabilities=(RAMP, None, STEP),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    bank().save(tmp_path / "site.bank")
    return tmp_path / "site.bank"


def rewrite(
    path: Path, change: Callable[[Tensors], object], header: dict[str, Any] | None = None
) -> None:
    """Write a bank's file again with other tensors, and other keys in its header."""
    raw = path.read_bytes()
    outer = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    inner = {**json.loads(outer["__metadata__"]["taidpt"]), **(header or {})}
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, {"taidpt": json.dumps(inner)})


def test_thresholds_and_maps_load_bit_by_bit(path: Path) -> None:
    loaded = ClassBank.load(path)
    assert loaded.thresholds == bank().thresholds
    assert loaded.probabilities == (RAMP, None, STEP)
    assert loaded.thresholds[1:] == (Threshold(4 / 3, 1.1, "source 1"), loaded.thresholds[2])
    loaded.select(("café", "dog")).save(path)
    assert ClassBank.load(path).probabilities == (STEP, None)


def test_maps_may_have_different_facts(path: Path) -> None:
    """What is no number in each of them, or not in each, comes back as well."""
    plain = {"scores": [0.0, 1.0], "probabilities": [0.0, 1.0]}
    maps = ({**plain, "band": [1.0], "n": 3}, plain, {**plain, "band": [1.0, 2.0], "why": "x"})
    ClassBank.from_rows(("a", "b", "c"), rows(), rows(), probabilities=maps).save(path)
    assert ClassBank.load(path).probabilities == maps


def test_a_bank_of_schema_1_is_read(path: Path) -> None:
    whole = bank()
    header = {
        "schema": 1,
        "thresholds": [threshold.to_json() for threshold in whole.thresholds],
        "probabilities": [RAMP, None, STEP],
    }
    later = ("thresholds", "map_lengths", "map_points", "map_fact.band", "map_fact.share")
    rewrite(path, lambda tensors: [tensors.pop(name) for name in later], header)
    loaded = ClassBank.load(path)
    assert loaded.thresholds == whole.thresholds
    assert loaded.probabilities == whole.probabilities
    golden = ClassBank.load(REPOSITORY / "tests" / "golden" / "schema1.taidpt" / "bank.safetensors")
    assert len(golden.thresholds) == 5
    rewrite(path, dict, {**header, "thresholds": [{"on": 1.0, "off": 2.0, "source": "x"}] * 3})
    with pytest.raises(BundleError, match=r"thresholds\[0\]: 'off' should be at most"):
        ClassBank.load(path)
    rewrite(path, dict, {**header, "probabilities": [RAMP, None, 7]})
    with pytest.raises(BundleError, match="'probabilities' should be a list of objects"):
        ClassBank.load(path)


def _set(name: str, place: Any, value: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name][place] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("thresholds", (1, 2), 9.0), r"thresholds\[2\]: a threshold's off must not exceed"),
        (_set("thresholds", (0, 0), np.nan), "thresholds should be finite float64 .*…"),
        (_set("map_points", (0, 1), -5.0), r"probabilities\[0\]: a probability map needs rising"),
        (_set("map_points", (1, 3), 1.5), r"probabilities\[2\]: .* probabilities in 0 … 1"),
        (_set("map_points", (0, 0), np.inf), "map_points should be finite"),
        (_set("map_lengths", 1, 1), "as many probabilities as scores"),
        (_set("map_lengths", 0, -3), "as many probabilities as scores"),
        (_set("map_lengths", 0, 2**62), "as many probabilities as scores"),
        (_set("map_fact.band", (0, 0), np.nan), "map_fact.band should be finite"),
        (lambda t: t.update({"map_fact.band": np.zeros((3, 2))}), "2 probability maps have 3 val"),
        (lambda t: t.update(thresholds=t["thresholds"][:, :2]), r"on \[2\], off \[2\] and 3 sou"),
        (lambda t: t.update(thresholds=t["thresholds"].T), r"thresholds should be .*\[3, 2\]"),
        (lambda t: t.pop("thresholds"), "has no tensor 'thresholds'"),
        (lambda t: t.pop("map_points"), "has no tensor 'map_points'"),
        (lambda t: t.pop("scale"), "has no tensor 'scale'"),
        (lambda t: t.update(x=np.zeros(1, np.float16)), "'dtype' should be one of F32, F64, I64"),
    ],
)
def test_a_fault_gives_one_line_with_the_file(
    path: Path, change: Callable[[Tensors], object], message: str
) -> None:
    rewrite(path, change)
    with pytest.raises(BundleError, match=rf"site\.bank.*{message}") as caught:
        ClassBank.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"threshold_sources": ["a", 1, "b"]}, "'threshold_sources' should be a list of strings"),
        ({"map_facts": {"state": "seen"}}, "'map_facts' should be an object of lists"),
        ({"map_facts": {"state": ["seen"]}}, "2 probability maps have 1 values of 'state'"),
        ({"map_facts": []}, "'map_facts' should be an object"),
        ({"kind": "taidpt-prompts"}, "'kind' should be one of taidpt-bank"),
    ],
)
def test_a_wrong_header_is_named(path: Path, header: dict[str, Any], message: str) -> None:
    rewrite(path, dict, header)
    with pytest.raises(BundleError, match=message):
        ClassBank.load(path)


def _with_offsets(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    outer = json.loads(raw[8 : 8 + size])
    change(outer)
    text = json.dumps(outer).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])


def test_misplaced_tensors_are_refused(path: Path) -> None:
    whole = path.read_bytes()

    def overlap(outer: dict[str, Any]) -> None:
        outer["local_embeddings"]["data_offsets"] = outer["global_embeddings"]["data_offsets"]

    def outside(outer: dict[str, Any]) -> None:
        outer["bias"]["data_offsets"] = [10**12, 10**12 + 12]

    def huge(outer: dict[str, Any]) -> None:
        outer["bias"]["shape"] = [10**15]

    for change, message in (
        (overlap, "overlap or leave gaps"),
        (outside, "bias is not where"),
        (huge, "bias is not where"),
    ):
        path.write_bytes(whole)
        _with_offsets(path, change)
        with pytest.raises(BundleError, match=f"damaged bank .*{message}"):
            ClassBank.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(BundleError, match="damaged bank"):
        ClassBank.load(path)
    assert is_bank(path)
    assert not is_bank(path.parent)


def test_a_mapped_matrix_keeps_its_content_when_the_file_is_replaced(path: Path) -> None:
    mapped = map_local_embeddings(path)
    ClassBank.from_rows(("x",), rows(1), rows(1)).save(path)
    np.testing.assert_array_equal(mapped, rows(seed=1))
    assert not mapped.flags.writeable

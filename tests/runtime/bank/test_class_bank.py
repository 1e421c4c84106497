"""The class bank: written, read back, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save, save_file

from taidpt.runtime.bank.bank_file import read_bank_names
from taidpt.runtime.bank.class_bank import ClassBank, Threshold
from taidpt.runtime.errors import BundleError, InputError


def rows(count: int = 3, dim: int = 8, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def bank(**changes: object) -> ClassBank:
    values: dict[str, object] = {
        "value_embeddings": rows(seed=2) * np.float32(3),
        "thresholds": tuple(Threshold(i + 0.5, i + 0.1, "from texts") for i in range(3)),
        "metadata": {"model": "RN50", "nested": {"sha256": "ab"}},
    }
    names = ("cat", "traffic light", "café")
    return ClassBank.from_rows(names, rows(), rows(seed=1), **{**values, **changes})


def test_a_saved_bank_loads_unchanged(tmp_path: Path) -> None:
    saved = bank(scale=np.array([1, 2, 3], np.float32), bias=np.array([0, -1, 0.5], np.float32))
    saved.save(tmp_path / "b.safetensors")
    loaded = ClassBank.load(tmp_path / "b.safetensors")
    assert loaded.names == saved.names
    assert loaded.thresholds == saved.thresholds
    assert loaded.metadata == saved.metadata
    for name in ("global_embeddings", "local_embeddings", "scale", "bias", "value_embeddings"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
    assert read_bank_names(tmp_path / "b.safetensors") == saved.names


def test_background_tags_stay_with_a_bank(tmp_path: Path) -> None:
    nouns = ClassBank.from_rows(("tree", "sky"), rows(2, seed=3), rows(2, seed=4))
    saved = bank(value_embeddings=None, background=nouns)
    saved.save(tmp_path / "b.safetensors")
    loaded = ClassBank.load(tmp_path / "b.safetensors")
    assert loaded.metadata == saved.metadata
    assert loaded.background is not None
    assert loaded.background.names == ("tree", "sky")
    rows_behind = loaded.select(["café"]).competing()["local_embeddings"]
    np.testing.assert_array_equal(rows_behind, np.concatenate([rows(seed=1)[2:], rows(2, seed=4)]))
    with pytest.raises(InputError, match="without value embeddings"):
        bank(background=nouns)  # it has value embeddings


@pytest.mark.parametrize("lost", ["background.scale", "background.local_embeddings", "names"])
def test_a_bank_with_half_of_its_background_is_damaged(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "b.safetensors"
    nouns = ClassBank.from_rows(("tree", "sky"), rows(2, seed=3), rows(2, seed=4))
    bank(value_embeddings=None, background=nouns).save(path)
    with safe_open(path, "np") as file:
        header = json.loads(file.metadata()["taidpt"])
        arrays = {name: file.get_tensor(name) for name in file.keys() if name != lost}  # noqa: SIM118
    if lost == "names":
        header["metadata"]["background"] = 5
    save_file(arrays, path, {"taidpt": json.dumps(header)})
    with pytest.raises(BundleError):
        ClassBank.load(path)


def test_defaults_are_scale_four_and_no_bias(tmp_path: Path) -> None:
    plain = ClassBank.from_rows(("a",), rows(1), rows(1))
    plain.save(tmp_path / "b.safetensors")
    loaded = ClassBank.load(tmp_path / "b.safetensors")
    assert loaded.scale.tolist() == [4.0]
    assert loaded.bias.tolist() == [0.0]
    assert loaded.value_embeddings is None
    assert loaded.thresholds == ()
    assert "1 tags, dim 8: a" in repr(loaded)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": np.ones(2, np.float32)}, "scale should be float32"),
        ({"bias": np.full(3, np.nan, np.float32)}, "bias holds values that are not finite"),
        ({"value_embeddings": rows(2)}, "value_embeddings should be float32"),
        ({"thresholds": (Threshold(1, 0, "default"),)}, "3 tags has 1 thresholds"),
    ],
)
def test_a_wrong_bank_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bank(**changes)


def test_names_and_unit_rows_are_checked() -> None:
    with pytest.raises(InputError, match="occur twice: a"):
        ClassBank.from_rows(("a", "b", "a"), rows(), rows())
    with pytest.raises(InputError, match="at least one tag"):
        ClassBank.from_rows((), rows(0), rows(0))
    with pytest.raises(InputError, match="must not be empty"):
        ClassBank.from_rows(("a", " ", "b"), rows(), rows())
    with pytest.raises(InputError, match="length 1"):
        ClassBank.from_rows(("a", "b", "c"), rows() * np.float32(1.1), rows())
    with pytest.raises(InputError, match="float32"):
        ClassBank.from_rows(("a", "b", "c"), rows().astype(np.float64), rows())


def test_thresholds_must_be_in_order_and_finite() -> None:
    with pytest.raises(InputError, match="must not exceed"):
        Threshold(1, 2, "default")
    with pytest.raises(InputError, match="finite"):
        Threshold(float("nan"), 0, "default")


def test_errors_of_damaged_banks_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    with pytest.raises(InputError, match=r"b\.safetensors: cannot read the bank"):
        ClassBank.load(path)
    bank().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(BundleError, match=r"b\.safetensors: damaged bank"):
        ClassBank.load(path)
    path.write_bytes(whole[:40])
    with pytest.raises(BundleError, match="not valid JSON"):
        ClassBank.load(path)
    path.write_bytes(save({"x": np.zeros(1)}))
    with pytest.raises(BundleError, match="expected an object"):
        ClassBank.load(path)


def test_a_newer_bank_asks_for_an_update(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    bank().save(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'\\"schema\\": 2', b'\\"schema\\": 7'))
    with pytest.raises(BundleError, match="bank schema 7 is newer"):
        ClassBank.load(path)

"""Score files: what they hold, how targets are read, and which files are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.score_file import ScoreFile

TARGETS = np.array([[1, -1], [0, 1], [-1, 1]])
GLOBAL = np.array([[0.9, 0.2], [0.5, 0.6], [0.1, 0.4]])
LOCAL = GLOBAL[::-1].copy()
GOOD: dict[str, Any] = {"targets": TARGETS, "global": GLOBAL, "local": LOCAL}


def test_a_file_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = ScoreFile(TARGETS.astype(np.int8), GLOBAL, LOCAL, ("dog", "cat"))
    saved.save(tmp_path / "s.npz")
    loaded = ScoreFile.load(tmp_path / "s.npz")
    for name in ("targets", "global_scores", "local_scores"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
    assert loaded.names == saved.names
    assert loaded.source == str(tmp_path / "s.npz")


def test_targets_are_optional_until_they_are_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", **{"global": GLOBAL, "local": LOCAL})
    loaded = ScoreFile.load(tmp_path / "s.npz")
    assert loaded.targets is None
    assert loaded.names == ("0", "1")
    with pytest.raises(InputError, match=r"s\.npz: no targets"):
        _ = loaded.labels


def test_without_a_minus_one_zero_is_negative(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", **{**GOOD, "targets": np.maximum(TARGETS, 0)})
    np.testing.assert_array_equal(
        ScoreFile.load(tmp_path / "s.npz").labels, np.where(TARGETS > 0, 1, -1)
    )


def test_a_merge_weight_outside_0_to_1_is_refused() -> None:
    with pytest.raises(InputError, match=r"from 0 to 1, got 1\.5"):
        ScoreFile(None, GLOBAL, LOCAL, ("a", "b")).merged(1.5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"local": None}, "no array local"),
        ({"global": GLOBAL[:2]}, "of one shape"),
        ({"targets": TARGETS[:2]}, "of one shape"),
        ({"targets": TARGETS * 3}, "targets should be"),
        ({"targets": TARGETS.astype(str)}, "targets should be"),
        (
            {"global": GLOBAL * [1, np.nan]},
            "3 values .* the first at row 0, tag 1",
        ),
        ({"local": LOCAL + np.inf}, "not finite"),
        ({"global": GLOBAL.astype(str)}, "global should be numbers"),
        ({"local": 1j * LOCAL}, "local should be numbers"),
        ({key: value[:, 0] for key, value in GOOD.items()}, "at least one of each; got float64"),
        ({key: value[:0] for key, value in GOOD.items()}, "at least one of each; got float64"),
        ({"names": np.eye(2)}, "names should be C strings"),
        ({"names": np.array(["a"])}, "1 names for 2 tags"),
        ({"names": np.array(["a", "a"])}, "distinct"),
    ],
)
def test_bad_arrays_are_refused(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    arrays = {key: value for key, value in (GOOD | changes).items() if value is not None}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=expected) as caught:
        ScoreFile.load(tmp_path / "bad.npz")
    assert "bad.npz" in str(caught.value)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not really")
    np.save(tmp_path / "bare.npy", GLOBAL)
    np.savez(tmp_path / "pickled.npz", targets=np.array([{}], dtype=object))
    for name in ("broken.npz", "bare.npy", "pickled.npz", "nothing.npz", "."):
        with pytest.raises(InputError, match="scores") as caught:
            ScoreFile.load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)

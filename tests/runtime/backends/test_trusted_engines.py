"""Engines are executable code: only those built on this machine run."""

from __future__ import annotations

from pathlib import Path

import pytest

from taidpt.runtime.backends.trusted_engines import is_trusted, read_trusted, record_path, trust
from taidpt.runtime.errors import BackendError, BundleError, InputError


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def engine(tmp_path: Path, data: bytes = b"plan") -> Path:
    path = tmp_path / "sm_87.plan"
    path.write_bytes(data)
    return path


def test_only_recorded_engines_are_returned(tmp_path: Path) -> None:
    path = engine(tmp_path)
    with pytest.raises(BackendError, match=r"sm_87\.plan: not built on this machine"):
        read_trusted(path)
    assert read_trusted(path, trust_engine=True) == b"plan"
    assert not is_trusted(b"plan")
    digest = trust(path)
    assert len(digest) == 64
    assert read_trusted(path) == b"plan"
    trust(engine(tmp_path, b"second"))
    assert is_trusted(b"plan")
    assert is_trusted(b"second")
    path.write_bytes(b"changed afterwards")
    with pytest.raises(BackendError, match="not built on this machine"):
        read_trusted(path)


def test_the_record_is_outside_of_bundles(tmp_path: Path) -> None:
    trust(engine(tmp_path))
    assert record_path() == tmp_path / "state" / "taidpt" / "trusted.json"
    assert record_path().is_file()


def test_a_relative_state_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    assert record_path() == Path.home() / ".local" / "state" / "taidpt" / "trusted.json"


def test_a_record_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = engine(tmp_path)
    trust(path)
    record_path().chmod(0o666)
    with pytest.raises(BackendError, match="others may write to it"):
        read_trusted(path)


def test_damaged_records_and_missing_engines(tmp_path: Path) -> None:
    path = engine(tmp_path)
    trust(path)
    record_path().write_text("{")
    with pytest.raises(BundleError, match="not valid JSON"):
        read_trusted(path)
    record_path().write_text('{"schema": 9, "files": {}}')
    with pytest.raises(BackendError, match="newer taidpt"):
        read_trusted(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_trusted(tmp_path / "none.plan")

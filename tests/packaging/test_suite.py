"""How the tests themselves are run: in two processes, with a table of what was skipped."""

from __future__ import annotations

import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest
from tests.support import REPOSITORY


@pytest.mark.parametrize(("cores", "expected"), [(1, False), (2, True), (16, True)])
def test_make_test_runs_two_processes_where_there_are_two_cores(cores: int, expected: bool) -> None:
    if shutil.which("make") is None:
        pytest.skip("make: not installed")
    command = ["make", "--dry-run", "test", f"CORES={cores}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert (" -n 2 " in done.stdout) == expected


def test_skipped_tests_are_listed_by_reason() -> None:
    lines: list[str] = []
    skips = [("a.py", 1, "Skipped: gpu: no device"), ("b.py", 9, "Skipped: c++: apt install g++")]
    reports = [SimpleNamespace(longrepr=skip) for skip in (*skips, ("c.py", 2, skips[0][2]))]
    reporter: Any = SimpleNamespace(
        stats={"skipped": reports}, section=lines.append, write_line=lines.append
    )
    conftest.pytest_terminal_summary(reporter)
    assert lines == ["skipped tests", "    2  gpu: no device", "    1  c++: apt install g++"]


def test_files_that_take_longest_exist_and_come_first() -> None:
    present = {path.name for path in (REPOSITORY / "tests").rglob("test_*.py")}
    assert set(conftest._LONG_FILES) <= present
    names = ["test_a.py", *reversed(conftest._LONG_FILES), "test_b.py"]
    items: list[Any] = [
        SimpleNamespace(path=SimpleNamespace(name=name), get_closest_marker=lambda _: None)
        for name in names
    ]
    conftest.pytest_collection_modifyitems(items)
    assert [item.path.name for item in items] == [*conftest._LONG_FILES, "test_a.py", "test_b.py"]


def test_encoders_are_shared_only_where_nothing_differs() -> None:
    torch = pytest.importorskip("torch")

    def key(value: float, spec: str = "64 x 64", opset: int = 18) -> str:
        module = torch.nn.Linear(2, 3)
        module.register_buffer("table", torch.ones(2), persistent=False)
        with torch.no_grad():
            for tensor in module.parameters():
                tensor.fill_(0.5)
            module.table[1] = value
        return conftest._encoder_key(module, spec, opset)

    assert key(1.0) == key(1.0)
    assert len({key(1.0), key(2.0), key(1.0, "96 x 96"), key(1.0, opset=17)}) == 4

"""docs/reliability.md: each row names a test that exists, and no figure of a fault above zero."""

from __future__ import annotations

import re

from tests.support import REPOSITORY

# Columns that count faults, by the first word of their header.
FAULTS = ("tracebacks", "hangs", "lost", "doubled")


def rows() -> list[dict[str, str]]:
    """The rows of all tables, by the headers of their columns."""
    found: list[dict[str, str]] = []
    headers: list[str] = []
    for line in (REPOSITORY / "docs" / "reliability.md").read_text("utf-8").splitlines():
        if not line.startswith("|"):
            headers = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not headers:
            headers = cells
        elif set(line) - set("|-"):
            assert len(cells) == len(headers), line
            found.append(dict(zip(headers, cells, strict=True)))
    return found


def test_every_promise_names_tests_that_exist() -> None:
    folder = REPOSITORY
    for row in rows():
        names = re.findall(r"`([\w/]+\.py)`", row["test"])
        assert names or row["test"] == "same", row["promise"]
        for name in names:
            path = REPOSITORY / name if "/" in name else folder / name
            assert path.is_file(), f"{row['promise']}: {name}"
            assert "\ndef test_" in path.read_text("utf-8")
            folder = path.parent


def test_every_promise_has_its_figures() -> None:
    for row in rows():
        assert row["tried"], row["promise"]
        for name in FAULTS:
            figure = row.get(name, "")
            assert re.fullmatch(r"0|< [\d.]+ \w+|", figure), f"{row['promise']}: {name} {figure}"
        assert row["tracebacks"] == "0", row["promise"]


def test_every_test_of_hostile_input_is_in_a_table() -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text("utf-8")
    files = sorted(path.name for path in (REPOSITORY / "tests" / "hostile").glob("test_*.py"))
    assert not [name for name in files if f"tests/hostile/{name}" not in text]

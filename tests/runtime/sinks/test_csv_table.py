"""Tables, read back by the csv module."""

from __future__ import annotations

import csv
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sinks.csv_table import CsvSink, _cell
from taidpt.runtime.stream.moment import Moment
from tests.runtime.hostile_names import HOSTILE


def test_a_table_is_read_back(hostile_moments: list[Moment], tmp_path: Path) -> None:
    sink = CsvSink(tmp_path / "t.csv")
    for moment in hostile_moments:
        sink.write(moment)
    sink.close()
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as stream:
        header, *rows = list(csv.reader(stream))
    assert header[:4] == ["source", "index", "time_s", "on"]
    assert header[4:] == [
        HOSTILE[0],
        "'=2+5",
        HOSTILE[2],
        "a b --> c",
        HOSTILE[4],
        " [2J ]0;title   31m god",
    ]
    assert [int(row[1]) for row in rows] == list(range(0, 100, 10))
    for row, moment in zip(rows, hostile_moments, strict=True):
        np.testing.assert_allclose([float(cell) for cell in row[4:]], moment.result.scores, 1e-4)
        assert float(row[2]) == pytest.approx(moment.time)


def test_a_table_goes_on_without_a_second_header(
    hostile_moments: list[Moment], tmp_path: Path
) -> None:
    path = tmp_path / "out.csv"
    for append in (False, True):
        table = CsvSink(path, append)
        for moment in hostile_moments[:3]:
            table.write(moment)
        table.close()
    rows = path.read_text("utf-8").splitlines()
    assert len(rows) == 7
    assert sum(row.startswith("source,") for row in rows) == 1
    path.write_text("source,index,time_s,on,cat\n", "utf-8")
    with pytest.raises(InputError, match="its columns are other tags"):
        CsvSink(path, append=True).write(hostile_moments[0])
    assert path.read_text("utf-8") == "source,index,time_s,on,cat\n"


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "  =1+1",
        "\u00a0+1",
        "\ufeff=1",
        "\u200b=1",
        "a;=1+1",
        "a; =1+1",
        "a,@SUM(1)",
        "a|-1",
        '";=1',
        "\t=1",
        "x\t=1",
        "\r=1",
        "＝1+1",
        "a:\"=cmd|' /C calc'!A0",
    ],
)
def test_no_cell_is_a_formula_behind_blanks_separators_or_quotes(text: str) -> None:
    cell = _cell(text)
    assert not {letter for letter in cell if unicodedata.category(letter) == "Cc"}
    for separator in ";,|:\t":
        for part in cell.split(separator):
            start = part.lstrip(' "\u00a0\u200b\ufeff')
            assert not start.startswith(tuple("=+-@＝＋－＠")), cell


@pytest.mark.parametrize("text", ["dog", "hot dog", "rock-and-roll", "a=b", "C++", "naïve", "1:2"])
def test_ordinary_cells_are_as_they_were(text: str) -> None:
    assert _cell(text) == text


def test_a_table_begins_with_its_header_after_each_rotation(
    hostile_moments: list[Moment], tmp_path: Path
) -> None:
    path = tmp_path / "out.csv"
    table = CsvSink(path)
    table.write(hostile_moments[0])
    os.truncate(path, 0)
    table.write(hostile_moments[1])
    emptied = path.read_text("utf-8").splitlines()
    path.rename(tmp_path / "moved.csv")
    table.reopen()
    table.write(hostile_moments[2])
    table.close()
    for rows in (emptied, path.read_text("utf-8").splitlines()):
        assert len(rows) == 2
        assert rows[0].startswith("source,")

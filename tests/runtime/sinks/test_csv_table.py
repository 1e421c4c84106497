"""Tables, read back by the csv module."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.sinks.csv_table import CsvSink
from taidpt.runtime.stream.moment import Moment
from tests.runtime.sinks.hostile_names import HOSTILE


def test_a_table_is_read_back(hostile_moments: list[Moment], tmp_path: Path) -> None:
    sink = CsvSink(tmp_path / "t.csv")
    for moment in hostile_moments:
        sink.write(moment)
    sink.close()
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as stream:
        header, *rows = list(csv.reader(stream))
    assert header[:4] == ["source", "index", "time_s", "on"]
    assert header[4:] == [HOSTILE[0], "'=2+5", HOSTILE[2], "a b --> c", HOSTILE[4]]
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

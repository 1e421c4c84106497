"""The queries of docs/archive.md, by DuckDB."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from taidpt.runtime.archive.request import ArchiveJob
from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.tag.request import Outputs, TagJob
from tests.runtime.archive.in_process import archive_here
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_video
from tests.support import REPOSITORY

PAGE = (REPOSITORY / "docs" / "archive.md").read_text("utf-8")
QUERIES = dict(re.findall(r"([^\n]+):\n\n```sql\n(SELECT.*?|WITH.*?)\n```", PAGE, re.DOTALL))
NAMES = ("car", "bicycle", "dog")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Any, ...]]]:
    """The heading of each query → its rows, on two cameras whose clips end after midnight."""
    folder = tmp_path_factory.mktemp("queries")
    spec = TinySpec(names=NAMES, thresholds=(0.4,), seed=3)
    bundle = tiny_bundle(folder / "street.taidpt", spec)
    for camera in ("gate", "yard"):
        (folder / "recordings" / camera).mkdir(parents=True)
        colour_video(folder / "recordings" / camera / "2026-11-28T23-59-58.mp4", 100)
    (folder / "recordings" / "yard" / "2026-11-29T01-00-00.mp4").write_bytes(b"\0\1 broken")
    tag = TagJob(str(bundle), (str(folder / "recordings"),), Outputs(top=10), BackendOptions("cpu"))
    archive_here(ArchiveJob(tag, str(folder / "tags"), "global", workers=1))
    before = Path.cwd()
    os.chdir(folder)
    try:
        database = duckdb.connect()
        (view,) = re.findall(r"```sql\n(CREATE VIEW.*?)\n```", PAGE, re.DOTALL)
        database.execute(view)
        return {title: database.execute(query).fetchall() for title, query in QUERIES.items()}
    finally:
        os.chdir(before)


def answer(answers: dict[str, list[tuple[Any, ...]]], words: str) -> list[tuple[Any, ...]]:
    (title,) = (title for title in answers if words in title)
    return answers[title]


def test_ten_queries_give_rows(answers: dict[str, list[tuple[Any, ...]]]) -> None:
    assert len(QUERIES) == 10
    empty = [title for title, rows in answers.items() if not rows]
    assert empty == ["What to look at by eye, because the probability is neither low nor high"]


def test_answers_are_right(answers: dict[str, list[tuple[Any, ...]]]) -> None:
    seen = answer(answers, "How often and how long")
    assert {row[0] for row in seen} <= set(NAMES)
    days = answer(answers, "by camera and day")
    assert {row[0] for row in days} == {"gate", "yard"}
    assert {str(row[1]) for row in days} <= {"2026-11-28", "2026-11-29"}
    unseen = [Path(clip).name for (clip,) in answer(answers, "nothing was seen")]
    assert unseen == ["2026-11-29T01-00-00.mp4"]
    recorded = answer(answers, "Hours that were recorded")
    assert [(row[0], row[2]) for row in recorded] == [("gate", 0), ("yard", 1)]
    assert recorded[0][1] == pytest.approx(99 / 25 / 3600)
    alike = answer(answers, "look like a given one")
    assert alike[0][2] == pytest.approx(1, abs=1e-3)
    assert len(alike) == 20
    best = [row[2] for row in answer(answers, "best frames of a tag")]
    assert best == sorted(best, reverse=True)

"""docs/architecture.md names every folder of the product and no other, and modules that exist."""

from __future__ import annotations

import re

import pytest

from taidpt.cli import COMMANDS
from tests.support import REPOSITORY

ROOMS = ("export", "kernels", "runtime", "taidpt")
TABLE_ROW = re.compile(r"^\| `([\w/]+)/` \| (.*) \| (.*) \|$", re.MULTILINE)


def document() -> str:
    return (REPOSITORY / "docs" / "architecture.md").read_text("utf-8")


def folders() -> set[str]:
    """Every package of the product, by its path from the repository's root."""
    packages = [path.parent for room in ROOMS for path in (REPOSITORY / room).rglob("__init__.py")]
    relative = {path.relative_to(REPOSITORY).as_posix() for path in packages}
    return {path for path in relative if not path.startswith(LINKS)}


LINKS = tuple(f"taidpt/{room}" for room in ROOMS)


def test_table_names_every_folder_and_no_other() -> None:
    named = [folder for folder, _, _ in TABLE_ROW.findall(document())]
    assert len(named) == len(set(named)), "a folder stands twice"
    assert set(named) == folders()


def test_table_names_modules_that_exist() -> None:
    for folder, _, hints in TABLE_ROW.findall(document()):
        for name in re.findall(r"`([\w/]+)/?`", hints):
            inside = REPOSITORY / folder
            present = (inside / f"{name}.py").is_file() or (REPOSITORY / name).is_dir()
            assert present or name in COMMANDS, f"docs/architecture.md: {folder}/ has no {name}"


def test_paths_in_the_text_exist() -> None:
    for name in ("docs/architecture.md", "CONTRIBUTING.md"):
        text = (REPOSITORY / name).read_text("utf-8")
        for path in re.findall(
            r"`((?:export|kernels|taidpt|runtime|tests|benchmarks)/[\w./]*)`", text
        ):
            assert (REPOSITORY / path).exists(), f"{name}: {path}"


# What a newcomer asks, as the table marks it, the folder, and code of it that does the thing.
QUESTIONS = {
    "events by HTTP": ("runtime/sinks", "webhook.py", "urlopen|opener|Request"),
    "how NV12 is cropped and converted to RGB": ("runtime/preprocess", "nv12.py", "def .*rgb"),
    "decoded pictures to RGB or NV12": ("runtime/sources", "frame_converter.py", "nv12"),
    "its temperature included": ("kernels/local_similarity", "naive.py", r"temperature \* simil"),
    "a new encoder": ("taidpt/encoders", "local_branch.py", "def register_local_branch"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_of_a_newcomer_lead_to_the_right_folder(question: str) -> None:
    folder, module, code = QUESTIONS[question]
    rows = TABLE_ROW.findall(document())
    assert [name for name, *texts in rows if question in " ".join(texts)] == [folder]
    assert re.search(code, (REPOSITORY / folder / module).read_text("utf-8"))

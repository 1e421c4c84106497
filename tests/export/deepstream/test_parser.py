"""The parser of nvinfer's outputs, compiled and called as nvinfer does.

DeepStream is not on PyPI or in Debian. Its header is taken from DEEPSTREAM_INCLUDE_DIR, or else
from stub/, which declares what the parser uses.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from taidpt.export.deepstream.job import PARSER
from tests.support import require

STUB = Path(__file__).with_name("stub")
HARNESS = Path(__file__).with_name("parser_harness.cpp")
FUNCTION = "NvDsInferParseCustomTaidpt"
FLOAT, HALF = "0", "1"
TAGS = "cat\t5e-01\ndog, wet\t-0.25\t-1.0\t0.0\t1.0\t0.5\t2.0\t1.0\ncafé\t0.0625\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the parser's library and the harness."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    require("c++", compiler is not None, "no C++ compiler: apt install g++")
    folder = tmp_path_factory.mktemp("parser")
    headers = os.environ.get("DEEPSTREAM_INCLUDE_DIR") or STUB
    flags = [str(compiler), "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    flags += ["-isystem", str(headers)]
    library = ["-fPIC", "-shared", str(PARSER), "-o", str(folder / "parser.so")]
    harness = [str(HARNESS), "-o", str(folder / "harness"), "-ldl"]
    for rest in (library, harness):
        subprocess.run([*flags, *rest], check=True, timeout=300)
    return folder


@pytest.fixture
def library(built: Path, tmp_path: Path) -> Path:
    """The library in a folder of its own, as in an export."""
    (tmp_path / "tags.tsv").write_text(TAGS, "utf-8")
    return Path(shutil.copy(built / "parser.so", tmp_path))


def call(
    built: Path, library: Path, *scores: str, layer: str = "scores", kind: str = FLOAT
) -> subprocess.CompletedProcess[str]:
    words = [str(built / "harness"), str(library), FUNCTION, layer, kind, *scores]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (("0.5", "1.5", "0.0625"), "0\tcat\t0.5\n1\tdog, wet\t0.75\n2\tcafé\t0.0625\n"),
        (("0.49", "-0.25", "-3"), "1\tdog, wet\t0.1875\n"),
        (("0.9", "-0.26", "0"), "0\tcat\t0.899999976\n"),
        (("0.1", "7", "0"), "1\tdog, wet\t1\n"),
        (("0.1", "-7", "0"), ""),
    ],
    ids=["all", "on the threshold", "first", "beyond the map", "none"],
)
def test_every_tag_above_its_own_threshold_and_no_other(
    built: Path, library: Path, scores: tuple[str, ...], expected: str
) -> None:
    done = call(built, library, *scores)
    assert (done.returncode, done.stderr) == (0, "")
    *attributes, description = done.stdout.splitlines(keepends=True)
    assert "".join(attributes) == expected
    names = [line.split("\t")[1] for line in expected.splitlines()]
    assert description == ", ".join(names) + "\n"


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_scores_that_are_no_numbers(built: Path, library: Path, bad: str) -> None:
    done = call(built, library, "9", bad, "9")
    assert done.returncode == 1
    assert done.stdout == "\n"  # no tag of such a frame
    assert done.stderr == (
        "taidpt: the score of 'dog, wet' is not finite; is the engine of another precision?\n"
    )


def test_outputs_of_another_model(built: Path, library: Path) -> None:
    done = call(built, library, "1", "1")
    assert done.returncode == 1
    assert "the engine has 2 scores and " in done.stderr
    assert "tags.tsv 3 tags; remove the engine of the earlier export\n" in done.stderr
    done = call(built, library, "1", "1", "1", layer="logits")
    assert "taidpt: the engine has no output 'scores'" in done.stderr
    done = call(built, library, "1", "1", "1", kind=HALF)
    assert "taidpt: the output 'scores' is not float32" in done.stderr


def test_tags_that_are_not_there_or_damaged(built: Path, library: Path) -> None:
    tags = library.with_name("tags.tsv")
    for text, message in (
        (None, "tags.tsv: cannot be read; keep the library in the folder"),
        ("", "tags.tsv: holds no tags"),
        ("cat\t0.5\ndog\n", "tags.tsv, line 2: expected name, threshold and pairs"),
        ("cat\t0.5x\n", "tags.tsv, line 1: expected a number, got '0.5x'"),
        ("cat\tnan\n", "tags.tsv, line 1: expected a number, got 'nan'"),
        ("cat\t0\t1\t0.5\t0\t0.9\n", "tags.tsv, line 1: the scores of the map do not rise"),
    ):
        tags.unlink(missing_ok=True)
        if text is not None:
            tags.write_text(text, "utf-8")
        done = call(built, library, "1", "1")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, "one line, though two frames failed"
        assert message in done.stderr

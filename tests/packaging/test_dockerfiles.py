"""The Dockerfiles: linted, their files there, their commands ours.

`.ci/run` also runs the steps of the first one (`scripts/dockerfile_steps.py`).
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.dockerfile_steps import Image, Step, steps
from taidpt.cli import COMMANDS
from tests.support import REPOSITORY, require

FILES = sorted((REPOSITORY / "docker").glob("*.Dockerfile"))
EXTRAS = re.compile(r'"/src\[([\w,-]+)\]"')


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    program = Path(sys.executable).with_name("hadolint")
    found = shutil.which("hadolint") or (str(program) if program.is_file() else None)
    require("hadolint", found is not None, "hadolint is not installed")
    done = subprocess.run([str(found), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_sent_to_docker(path: Path) -> None:
    sent = (REPOSITORY / ".dockerignore").read_text("utf-8").splitlines()
    for step in steps(path.read_text("utf-8")):
        if step.word == "COPY":
            for source in shlex.split(step.text)[:-1]:
                assert (REPOSITORY / source).exists(), source
                assert f"!{source}" in sent


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_health_check_and_extras_are_ours(path: Path) -> None:
    text = path.read_text("utf-8")
    found = {step.word: step.text for step in steps(text)}
    assert json.loads(found["ENTRYPOINT"]) == ["taidpt"]
    shell, flag, command = json.loads(found["HEALTHCHECK"].partition("CMD ")[2])
    assert (shell, flag) == ("sh", "-c")
    command = re.sub(r"\$\{\S+\}", "street.taidpt", command)
    program, name, *words = shlex.split(command.partition(" > ")[0])
    assert (program, name) == ("taidpt", "doctor")
    context = COMMANDS[name].load().make_context(name, words)
    assert str(context.params["json_path"]) == "-"
    extras = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    (names,) = EXTRAS.findall(text)
    assert all(re.search(rf"^{extra} = \[", extras, re.MULTILINE) for extra in names.split(","))


def test_steps_are_read_with_continuations_and_without_comments() -> None:
    text = "# a\nFROM x\nRUN one \\\n    && two\n# b\nCOPY a b /c/\n"
    assert list(steps(text)) == [
        Step("FROM", "x"),
        Step("RUN", "one && two"),
        Step("COPY", "a b /c/"),
    ]


def test_steps_run_below_the_folder_and_in_their_own_environment(tmp_path: Path) -> None:
    image = Image(tmp_path / "image")
    text = (
        "FROM x\nARG NAME=value\nRUN useradd me\nCOPY LICENSE NOTICE /src/\n"
        'RUN cp /src/LICENSE /data/$NAME && test -z "$VIRTUAL_ENV"\nENV PATH=/opt/a/bin:$PATH\n'
    )
    for step in steps(text):
        image.run(step)
    assert (tmp_path / "image/data/value").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()
    assert image.variables["PATH"].startswith(f"{tmp_path}/image/opt/a/bin:")
    assert image.left_out == ["FROM x", "RUN useradd me"]
    with pytest.raises(SystemExit, match="exit code 3"):
        image.run(Step("RUN", "exit 3"))

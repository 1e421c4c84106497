"""Every command line of the documents is run by a test, or marked why not.

All lines are checked without running them: commands, options and their values by click, scripts and
tests by their files. `NOT_RUN` names what is not run, and why; the rest runs here or, line by line,
in tests/packaging/test_base_install.py.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from taidpt.cli import COMMANDS, cli
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.tagger.active_bank import bundle_bank
from taidpt.toyworld import assets
from tests.packaging.documented import CommandLine, command_lines, inline_lines
from tests.packaging.test_base_install import DOCUMENTS as RUN_ON_A_BASE_INSTALL
from tests.runtime.videos import write_video
from tests.support import REPOSITORY

GROUPS = {name.partition(" ")[0] for name in COMMANDS if " " in name}
LINES = list(dict.fromkeys(command_lines()))
INLINE = [line for line in dict.fromkeys(inline_lines()) if line not in LINES]
# Lines that no test runs: a pattern of the line, and the reason.
NOT_RUN = {
    r"pip |python3 -m venv|\. \.venv|git clone|cd |/opt/taidpt/bin/pip": "the network; "
    "test_installs.py and test_base_install.py install without it",
    r"make ": "the whole of CI, which runs these targets",
    r"docker ": "no Docker here; scripts/dockerfile_steps.py runs the steps in CI",
    r"git ls|grep|xargs|sed|wc": "counts lines for a person",
    r"rsync|ssh|cp |mv |ln |install |useradd|chown|apt |nvpmodel|jetson_clocks|tegrastats|"
    r"systemctl|journalctl": "a Jetson as root",
    r"python -m pytest|ctest|cmake|python -m taidpt.kernels.aot": "run by tests/kernels",
    r"python (benchmarks|scripts)/": "measures for minutes, or writes a page",
    r"taidpt research (eval|tune-pictures) --dataset|taidpt research reproduce .*--root": "a data "
    "set of gigabytes; tests/taidpt/evaluation runs these commands on small ones",
    r"taidpt research reproduce toyworld": "tunes for an hour",
    r"taidpt tune --model DIR|taidpt-export prompts.safetensors$": "a downloaded model; "
    "tests/taidpt/clip makes such folders",
    r"taidpt demo --pretrained openai": "a download; tests/export/demo runs it on small weights",
    r"taidpt report ": "measures for a minute; tests/export/checks runs it for a moment",
    r"taidpt adapt ": "learns from a scene; tests/runtime/adapt runs it on a small one",
    r"taidpt archive .*--ray auto": "no cluster; tests/runtime/archive/test_ray.py has one",
    r"taidpt archive .*s3://": "no bucket; test_remote.py beside it has other file systems",
    r"tritonserver ": "no server on the path; tests/runtime/triton_server starts a real one",
    r"g\+\+ .*deepstream|gst-launch-1.0 .*nvinfer": "no DeepStream here; tests/export/deepstream "
    "compiles and calls the parser",
    r"export GST_PLUGIN_PATH|gst-launch-1.0 .*taidpt_tagger": "run by tests/examples",
    r"taidpt serve|curl |\(umask": "serves until it is stopped; tests/runtime/serve asks a running "
    "server",
    r"accelerate launch": "several processes; tests/taidpt/tuning runs them",
}


def our_command(words: list[str]) -> tuple[str, list[str]]:
    """The name in the table of commands, and the rest of the words."""
    if words[0] == "taidpt-export":
        return "export", words[1:]
    of_group = " ".join(words[1:3])
    return (of_group, words[3:]) if of_group in COMMANDS else (words[1], words[2:])


def is_ours(line: CommandLine) -> bool:
    return line.words[0] in ("taidpt", "taidpt-export")


def check_options(line: CommandLine) -> None:
    """Every option of a shortened line belongs to its command."""
    words = [word for word in line.words if word != "…"]
    if len(words) < 2 or words[1].startswith("-") or words[1] == "COMMAND":
        return
    name, rest = our_command(words)
    if name in GROUPS - set(COMMANDS):
        return
    known = {text for option in COMMANDS[name].load().params for text in option.opts}
    known |= {text for option in COMMANDS[name].load().params for text in option.secondary_opts}
    for word in rest:
        if word.startswith("-") and word != "-":
            assert word in known | {"--help"}, f"{line}: {name} has no {word}"


def check_script(line: CommandLine) -> None:
    """A script exists and has the options; a test exists; pytest's -k has its words in the file."""
    words = [word for word in line.words if word != "…"]
    paths = [word for word in words if re.match(r"(benchmarks|scripts|examples|tests)/", word)]
    for path in paths:
        assert (REPOSITORY / path).exists(), f"{line}: there is no {path}"
    if words[0] == "pytest" or not paths or not paths[0].endswith(".py"):
        return
    source = (REPOSITORY / paths[0]).read_text("utf-8")
    helpers = re.findall(r"from benchmarks\.(\w+) import", source)
    source += "".join((REPOSITORY / f"benchmarks/{name}.py").read_text("utf-8") for name in helpers)
    for word in words:
        if word.startswith("--"):
            assert f'"{word}"' in source, f"{line}: {paths[0]} has no {word}"


def check_make(line: CommandLine) -> None:
    targets = (REPOSITORY / "Makefile").read_text("utf-8")
    for word in line.words[1:]:
        assert re.search(rf"^{word}:", targets, re.MULTILINE), f"{line}: no such target"


def check_pip(line: CommandLine) -> None:
    project = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    for extras in re.findall(r"\[([\w,-]+)\]", line.text):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), f"{line}: no such extra"


CHECKS: dict[str, Callable[[CommandLine], None]] = {
    "taidpt": check_options,
    "taidpt-export": check_options,
    "python": check_script,
    "pytest": check_script,
    "make": check_make,
    "pip": check_pip,
}


@pytest.mark.parametrize("line", [*LINES, *INLINE], ids=str)
def test_line_names_what_exists(line: CommandLine) -> None:
    check = CHECKS.get(line.words[0])
    if check is not None:
        check(line)


@pytest.mark.parametrize("line", list(filter(is_ours, LINES)), ids=str)
def test_line_is_parsed_by_its_command(line: CommandLine) -> None:
    """Arguments, options and their values; no file is read."""
    if "…" in line.text:
        pytest.skip("shortened")
    name, rest = our_command(line.words)
    command = COMMANDS[name].load()
    try:
        command.make_context(name, list(rest))
    except click.UsageError as error:
        pytest.fail(f"{line}: {error.format_message()}")


RUN_HERE = (
    *("README.md", "docs/first-tagger.md", "docs/texts.md", "docs/tuning.md"),
    "docs/archive.md",  # its queries are run by tests/runtime/archive
    "docs/fleet.md",
)
SCORES = re.compile(
    r"taidpt research (eval --scores|ensemble)|taidpt research reproduce(| .*--dry-run)$"
)


def why_not_run(line: CommandLine) -> str | None:
    text = " ".join(line.words)
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, text)), None)


def runs_in_a_test(line: CommandLine) -> bool:
    document = Path(line.document).stem
    return is_ours(line) and (
        document in RUN_ON_A_BASE_INSTALL
        or (line.document in RUN_HERE and not re.search(r"--ray|s3://", line.text))
        or bool(SCORES.match(line.text))
    )


@pytest.mark.parametrize("line", LINES, ids=str)
def test_line_is_run_or_says_why_not(line: CommandLine) -> None:
    assert runs_in_a_test(line) or why_not_run(line), f"{line}: no test runs this line"


def test_every_reason_is_of_some_line() -> None:
    texts = [" ".join(line.words) for line in LINES]
    unused = [pattern for pattern in NOT_RUN if not any(re.match(pattern, text) for text in texts)]
    assert not unused


def run(line: CommandLine) -> str:
    """Run one of our commands in this process; its output."""
    name, rest = our_command(line.words)
    words = ["embedded" if word == "openai" else word for word in rest]
    words = ["toyworld" if word == "RN50-quickgelu" else word for word in words]
    done = CliRunner().invoke(cli, [*name.split(), *words])
    if name == "calibrate" and "keeps its thresholds" in str(done.exception):
        return str(done.exception)  # as the page says of frames that show too little
    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    return done.output


def test_scores_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The research page's lines on matrices of scores, on small ones."""
    monkeypatch.chdir(tmp_path)
    scores = np.random.default_rng(0).normal(size=(2, 60, 4)).astype(np.float32)
    targets = np.where(scores.mean(0) > 0, 1, -1)
    Path("s").mkdir()
    for name in ("FILE", "A", "B", "s/taidpt", "s/dualcoop"):
        np.savez(f"{name}.npz", targets=targets, **{"global": scores[0], "local": scores[1]})
    lines = [line for line in LINES if SCORES.match(line.text)]
    assert len(lines) >= 7
    for line in lines:
        assert run(line)
    assert Path("both.npz").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("shared_encoders")
def test_first_tagger_is_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first page's lines, in order, in one folder; the embedded model in place of RN50."""
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs" / "first-tagger.md").read_text("utf-8")
    (tags,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    Path("street.yaml").write_text(tags, "utf-8")
    captions = assets.path("tuning_captions.txt").read_text("utf-8").splitlines()
    named = [line for line in captions if re.search(r"\b(car|bicycle|dog|umbrella)s?\b", line)]
    Path("captions.txt").write_text("\n".join(named[:200]), "utf-8")
    pictures, _, _ = assets.load_heldout(every=12)
    write_video(Path("clip.mp4"), pictures, rate=1)
    own = [line for line in LINES if line.document in RUN_HERE and runs_in_a_test(line)]
    own = [line for line in own if not why_not_run(line)]
    done: dict[str, str] = {}
    camera = Path("recordings/gate")
    camera.mkdir(parents=True)
    shutil.copy("clip.mp4", camera / "2026-11-28T23-50-00.mp4")
    pages = ("texts", "first-tagger", "archive", "fleet", "tuning")
    for document in (*(f"docs/{page}.md" for page in pages), "README.md"):
        if document == "docs/archive.md":
            bundle_bank(Bundle.load("street.taidpt")).save("new.bank")
        for line in own:
            if line.document == document and line.text not in done:
                done[line.text] = run(line)
    assert {line.text for line in own} == set(done)
    for name in ("street.safetensors", "street.taidpt", "tags.jsonl", "tags.mp4"):
        assert Path(name).exists()

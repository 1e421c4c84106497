"""The command table: every command's help, exit codes, and what a light command may load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from taidpt.cli import _RENAMED, COMMANDS

TAIDPT = [sys.executable, "-m", "taidpt"]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TAIDPT, *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_help_lists_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name.split()[0]} " in done.stdout


@pytest.mark.parametrize("group", ["bank", "research"])
def test_help_of_a_group_lists_its_commands(group: str) -> None:
    done = run(group, "--help")
    assert done.returncode == 0
    for name in COMMANDS:
        if name.startswith(f"{group} "):
            assert f"  {name.split()[1]} " in done.stdout


@pytest.mark.parametrize("name", ["", "bank", "research", *COMMANDS])
def test_help_of_each_command_loads_no_heavy_package(name: str) -> None:
    code = (
        "import sys\n"
        "from taidpt.cli import cli\n"
        f"cli.main([*{name!r}.split(), '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'open_clip', 'av', 'PIL', 'numpy'}\n"
        "loaded = sorted(heavy & set(sys.modules))\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_tables_help_is_the_commands_first_sentence(name: str) -> None:
    assert COMMANDS[name].help == COMMANDS[name].load().get_short_help_str(80)


@pytest.mark.parametrize("group", ["", "bank", "research"])
def test_help_of_a_group_imports_no_command(group: str) -> None:
    code = (
        "import sys\n"
        "from taidpt.cli import COMMANDS, cli\n"
        f"cli.main([*{group!r}.split(), '--help'], standalone_mode=False)\n"
        "modules = {command.path.partition(':')[0] for command in COMMANDS.values()}\n"
        "print(*sorted(modules & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["tag", "--help"]])
def test_a_full_standard_output_is_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*TAIDPT, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "error: standard output: cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["tagg"], "Did you mean 'tag'?"),
        (["calibarte"], "Did you mean 'calibrate'?"),
        (["research", "evl"], "Did you mean 'eval'?"),
        (["tag", "b", "s", "--jsnl"], "Did you mean '--jsonl'?"),
        # earlier names
        (["texts", "--tags", "t.yaml"], "'texts' is `taidpt tune --check` now."),
        (["confusable", "b.taidpt"], "'confusable' is `taidpt calibrate --report` now."),
        (["compare-banks", "b", "s"], "'compare-banks' is `taidpt bank compare` now."),
        (["eval"], "'eval' is `taidpt research eval` now."),
    ],
)
def test_a_mistyped_or_earlier_name_gets_a_suggestion(words: list[str], meant: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert meant in done.stderr
    assert "Traceback" not in done.stderr


def test_no_command_that_exists_is_called_renamed() -> None:
    tops = {name.split()[0] for name in COMMANDS}
    assert not tops & set(_RENAMED)
    for new in _RENAMED.values():
        name, _, option = new.partition(" --")
        assert name in COMMANDS
        assert not option or f"--{option}" in {
            flag for parameter in COMMANDS[name].load().params for flag in parameter.opts
        }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("program", ["taidpt", "taidpt-export"])
def test_the_shells_completion_is_written(program: str, shell: str) -> None:
    done = complete(program, f"{shell}_source", "")
    assert f"{shell}_complete" in done
    assert program in done


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("taidpt ca", {"calibrate"}),
        ("taidpt bank ", {"make", "compare"}),
        ("taidpt research re", {"reproduce"}),
        ("taidpt tag b.taidpt --js", {"--jsonl"}),
        ("taidpt tag b.taidpt --device ort", {"ort-tensorrt"}),
        ("taidpt-export --swap", {"--swappable-bank"}),
    ],
)
def test_words_are_completed(typed: str, expected: set[str]) -> None:
    found = complete(typed.split(maxsplit=1)[0], "bash_complete", typed)
    assert {line.partition(",")[2] for line in found.split()} == expected


def test_files_are_completed_by_the_shell() -> None:
    assert complete("taidpt", "bash_complete", "taidpt tag b").split() == ["file,b"]
    assert complete("taidpt", "bash_complete", "taidpt tag b --jsonl x").split() == ["file,x"]


def complete(program: str, instruction: str, typed: str) -> str:
    main = "export_main" if program == "taidpt-export" else "main"
    code = f"import sys; sys.argv = [{program!r}]; from taidpt.cli import {main}; {main}()"
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, variable: instruction, **words},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_our_errors_are_one_line_without_a_traceback(tmp_path: Path) -> None:
    done = run("tag", str(tmp_path / "nothing.taidpt"), str(tmp_path / "nothing.mp4"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "nothing.taidpt" in done.stderr


def test_export_is_a_command_of_its_own() -> None:
    code = (
        "import sys; sys.argv = ['taidpt-export', '--help']\n"
        "from taidpt.cli import export_main; export_main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith("Usage: taidpt-export")
    assert done.stdout.splitlines()[1:] == run("export", "--help").stdout.splitlines()[1:]


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_with_its_own_code(sent: signal.Signals, status: int, said: str) -> None:
    """A command that waits, as for a pipe that nobody fills, is ended: && must not go on."""
    code = (
        "import sys, time, click\n"
        "from taidpt import cli\n"
        "@cli.cli.command('wait')\n"
        "def wait():\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(30)\n"
        "cli._run(wait, 'wait')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == status
    assert stderr.strip().splitlines()[-1] == said


UNREAD = """
import os, sys, click
from pathlib import Path
from taidpt import cli
from taidpt.runtime.errors import ParityError

@click.command()
def work():
    for line in range(20):
        click.echo(f'line {line} ' * 1000)
        print('and another')
    Path(os.environ['WRITTEN']).write_text('done')
    raise ParityError('no')

cli.Command.load = lambda self: work
cli.export_main() if sys.argv[0] == 'taidpt-export' else cli.main()
"""


@pytest.mark.parametrize(
    ("line", "status"), [("taidpt calibrate", 1), ("taidpt-export", 1), ("taidpt tag", 0)]
)
def test_only_a_stream_ends_when_nobody_reads_it(line: str, status: int, tmp_path: Path) -> None:
    """`taidpt calibrate … | head -1` printed its table before it wrote, and wrote nothing."""
    code = f"import sys; sys.argv = {line.split()!r}\n" + UNREAD
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "WRITTEN": str(tmp_path / "written")},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=60) == status, said
    assert (tmp_path / "written").exists() == (status == 1)
    assert said == ("error: no\n" if status else "")

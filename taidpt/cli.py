"""The command line: a table of command name → dotted path, each loaded when called."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import click

from taidpt import __version__
from taidpt.runtime.errors import TaidptError
from taidpt.runtime.optional import missing_package, optional_packages
from taidpt.runtime.printable import plain_output, printable
from taidpt.runtime.redact import redact
from taidpt.runtime.storage.stdout import ignore_broken_pipe
from taidpt.watchdog import end_process, watch_signals

__all__ = ["COMMANDS", "cli", "export_main", "main"]


class Command(NamedTuple):
    """Where a command is, and what `--help` says about it without importing it.

    Attributes:
        path: module:attribute.
        help: one line.
        extra: the extra of the package that the command needs; empty for the base install.
    """

    path: str
    help: str
    extra: str = ""


_DATASETS = "taidpt.commands.datasets"
_TUNE = "taidpt.commands.tune"
_EVALUATE = "taidpt.commands.evaluate"
_EXPORT = "taidpt.export.cli.commands"
_BANK = "taidpt.export.cli.bank_commands"
_CALIBRATE = "taidpt.calibration.commands"
_RUNTIME = "taidpt.runtime.commands"

COMMANDS = {
    "tune": Command(f"{_TUNE}:tune", "Tune prompts for your tags from a text file.", "tune"),
    "texts": Command(f"{_TUNE}:texts", "Report which tags your texts name, and how often.", "tune"),
    "eval": Command(
        f"{_EVALUATE}:evaluate", "Evaluate saved scores, or methods on a data set.", "tune"
    ),
    "ensemble": Command(f"{_EVALUATE}:ensemble", "Combine two score files."),
    "tune-pictures": Command(
        f"{_DATASETS}:tune_pictures", "Tune prompts on a data set's pictures.", "datasets"
    ),
    "reproduce": Command(f"{_DATASETS}:reproduce", "Run a published result again.", "datasets"),
    "datasets": Command(f"{_DATASETS}:datasets", "Look for the benchmark data sets."),
    "export": Command(f"{_EXPORT}:export", "Turn tuned prompts into a bundle.", "export"),
    "bank": Command(f"{_BANK}:bank", "Make a class bank: tags in one file.", "export"),
    "compare-banks": Command(
        f"{_BANK}:compare_banks", "Show what several banks would tag on your frames.", "export"
    ),
    "verify": Command(f"{_EXPORT}:verify", "Check that a bundle still gives the same tags."),
    "doctor": Command(f"{_EXPORT}:doctor", "Show what this machine has and lacks."),
    "demo": Command(f"{_EXPORT}:demo", "Run the whole line on the embedded toy world.", "demo"),
    "calibrate": Command(
        f"{_CALIBRATE}:calibrate",
        "Set thresholds from unlabelled frames of your scene.",
        "calibrate",
    ),
    "confusable": Command(
        f"{_CALIBRATE}:confusable",
        "Report tags that are easily taken for each other.",
        "calibrate",
    ),
    "tag": Command(f"{_RUNTIME}:tag", "Tag pictures, folders and videos."),
    "bench": Command(f"{_RUNTIME}:bench", "Measure a bundle on this machine."),
}

# `tag` streams its results, so a closed pipe ends it; other commands continue without a reader.
_ENDS_WITH_ITS_READER = "tag"


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None when there is none."""
        if cmd_name not in COMMANDS:
            return None
        module_name, _, attribute = COMMANDS[cmd_name].path.partition(":")
        command: click.Command = getattr(importlib.import_module(module_name), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command table without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; a missing optional package becomes one line."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            name = ctx.invoked_subcommand or ""
            raise missing_package(error, f"taidpt {name}", COMMANDS[name].extra) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="taidpt")
@click.pass_context
def cli(context: click.Context) -> None:
    """Tag pictures and video with your own list of tags, tuned from text alone."""
    if context.invoked_subcommand != _ENDS_WITH_ITS_READER:
        ignore_broken_pipe()


def main() -> NoReturn:
    """Entry point of `taidpt`."""
    _run(cli, "taidpt")


def export_main() -> NoReturn:
    """Entry point of `taidpt-export`, the same as `taidpt export`."""
    command = cli.get_command(click.Context(cli), "export")
    assert command is not None
    ignore_broken_pipe()
    _run(command, "taidpt-export", COMMANDS["export"].extra)


class _Terminated(BaseException):
    """SIGTERM or SIGHUP arrived and the command did not handle it itself."""


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    raise _Terminated


def _run(command: click.Command, name: str, extra: str = "") -> NoReturn:
    """Run a command and end the process with the documented exit code.

    0 done, 1 a check failed, 2 bad input or usage, 3 no engine, 130 interrupted, 143 terminated
    before the end; a stream that SIGTERM drained, or that nobody reads any more, ends with 0. What
    does not react to these signals ends with 130 or 143 at the second one, or 10 seconds later.
    """
    signal.signal(signal.SIGTERM, _on_sigterm)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` leaves it
        signal.signal(signal.SIGHUP, _on_sigterm)
    watch_signals()
    plain_output()
    if sys.stderr is None:  # closed with `2>&-`; what would be said there is said to nobody
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    try:
        with optional_packages(name, extra):
            code = _invoke(command, name)
    except click.exceptions.Abort:
        code = _say("interrupted", 130)
    except KeyboardInterrupt:
        code = _say("interrupted", 130)
    except _Terminated:
        code = _say("terminated", 143)
    except click.ClickException as error:
        error.show()
        code = 2
    except TaidptError as error:
        code = _say(f"error: {error}", error.exit_code)
    except BrokenPipeError:
        code = 0
    except MemoryError as error:
        asked = f" ({error})" if str(error) else ""
        code = _say(f"error: out of memory{asked}; close other programs, or use smaller inputs", 2)
    except OSError as error:
        if not _is_stdouts(error):
            raise
        code = _say(f"error: standard output: cannot be written: {error.strerror}", 2)
    _leave(code)


def _invoke(command: click.Command, name: str) -> int:
    """Parse and call; not click's own `main`, which turns a closed standard output into exit 1."""
    try:
        with command.make_context(name, sys.argv[1:]) as context:
            result = command.invoke(context)
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    if sys.stdout is not None:
        sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _is_stdouts(error: OSError) -> bool:
    """Whether a full disk under standard output is all that failed: such errors name no file."""
    return error.errno == errno.ENOSPC and error.filename is None


def _say(line: str, code: int) -> int:
    print(printable(redact(line)), file=sys.stderr)
    return code


def _leave(code: int) -> NoReturn:
    """End without Python's complaint about a standard output that is full or read by nobody."""
    try:
        if sys.stdout is not None:  # closed with `>&-`
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    end_process(code)


if __name__ == "__main__":
    main()

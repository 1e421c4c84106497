"""The command line: a table of command name → dotted path and help, each loaded when called.

`taidpt --help` imports no command, and nothing here that click does not need itself.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections import UserDict
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import click

from taidpt import __version__
from taidpt.runtime.errors import TaidptError
from taidpt.runtime.optional import missing_package, optional_packages
from taidpt.runtime.printable import plain_output, printable
from taidpt.runtime.storage.stdout import ignore_broken_pipe
from taidpt.watchdog import end_process, watch_signals

__all__ = ["COMMANDS", "cli", "export_main", "main"]


class Command(NamedTuple):
    """Where a command is.

    Attributes:
        path: module:attribute.
        help: the command's line in `taidpt --help`: the first sentence of its own help.
        extra: the extra of the package that the command needs; empty for the base install.
    """

    path: str
    help: str
    extra: str = ""

    def load(self) -> click.Command:
        """Import the command's module."""
        module, _, attribute = self.path.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


COMMANDS = {
    "demo": Command(
        "taidpt.export.cli.commands:demo", "Run every step on the embedded toy world.", "demo"
    ),
    "tune": Command(
        "taidpt.commands.tune:tune", "Tune prompts for your tags on texts alone.", "tune"
    ),
    "export": Command(
        "taidpt.export.cli.commands:export",
        "Turn tuned PROMPTS into a bundle, or add an engine to a BUNDLE.",
        "export",
    ),
    "export triton": Command(
        "taidpt.runtime.commands:export_triton",
        "Write a model repository of Triton Inference Server.",
    ),
    "export deepstream": Command(
        "taidpt.export.cli.commands:export_deepstream",
        "Write a folder for DeepStream's nvinfer.",
        "export",
    ),
    "tag": Command(
        "taidpt.runtime.commands:tag", "Tag pictures, folders, videos, cameras and streams."
    ),
    "serve": Command(
        "taidpt.runtime.commands:serve",
        "Serve a page and an API with the tags of cameras and streams.",
        "serve",
    ),
    "archive": Command(
        "taidpt.runtime.commands:archive",
        "Tag an archive of recordings into parquet tables.",
        "archive",
    ),
    "archive retag": Command(
        "taidpt.runtime.commands:archive_retag",
        "Ask an archive for other tags, from its stored features.",
        "archive",
    ),
    "archive write-tags": Command(
        "taidpt.runtime.commands:archive_write_tags",
        "Write an archive's tags into XMP sidecars, for photo libraries.",
        "archive",
    ),
    "calibrate": Command(
        "taidpt.calibration.commands:calibrate",
        "Set thresholds from unlabelled frames of your scene.",
        "calibrate",
    ),
    "adapt": Command(
        "taidpt.runtime.commands:adapt",
        "Learn class rows from unlabelled frames of your scene, or from examples.",
    ),
    "bank make": Command(
        "taidpt.export.cli.bank_commands:make", "Write a class bank: tags in one file.", "export"
    ),
    "bank compare": Command(
        "taidpt.export.cli.bank_commands:compare",
        "Show side by side what banks would tag on your frames.",
        "export",
    ),
    "verify": Command(
        "taidpt.export.cli.commands:verify", "Check that a BUNDLE still gives PyTorch's results."
    ),
    "bench": Command(
        "taidpt.runtime.commands:bench", "Measure BUNDLE on this machine, on synthetic frames."
    ),
    "doctor": Command("taidpt.export.cli.commands:doctor", "Show what this machine has and lacks."),
    "report": Command(
        "taidpt.export.cli.commands:report", "Measure BUNDLE on this board, for a table of boards."
    ),
    "research eval": Command(
        "taidpt.commands.evaluate:evaluate",
        "Evaluate saved scores, or methods on a data set.",
        "tune",
    ),
    "research ensemble": Command(
        "taidpt.commands.evaluate:ensemble", "Combine two score files, and print the mAP."
    ),
    "research reproduce": Command(
        "taidpt.commands.datasets:reproduce", "Reproduce published results.", "datasets"
    ),
    "research tune-pictures": Command(
        "taidpt.commands.datasets:tune_pictures",
        "Tune prompts on a data set's training pictures.",
        "datasets",
    ),
    "research datasets": Command(
        "taidpt.commands.datasets:datasets", "List which benchmark data sets a folder holds."
    ),
}
# How `taidpt --help` groups them.
_SECTIONS = {
    "From texts to tags": ("demo", "tune", "export", "tag", "serve"),
    "Archives and fleets": (
        "archive",
        "archive retag",
        "archive write-tags",
        "export triton",
        "export deepstream",
    ),
    "For your scene": ("calibrate", "adapt", "bank"),
    "Checks": ("verify", "bench", "doctor", "report"),
    "Research": ("research",),
}
# Earlier names. A refusal names the new one; an alias would still fail at an option that has
# changed its name too.
_RENAMED = {
    "texts": "tune --check",
    "confusable": "calibrate --report",
    "compare-banks": "bank compare",
    **{name.removeprefix("research "): name for name in COMMANDS if name.startswith("research ")},
}
# `tag` streams its results, so a closed pipe ends it; other commands continue without a reader.
_ENDS_WITH_ITS_READER = "tag"


class _LazyCommands(UserDict[str, Any]):
    """Commands by name, each imported when it is looked up; `help_of` imports none."""

    def __getitem__(self, name: str) -> click.Command:
        entry = self.data[name]
        command: click.Command = entry.load() if isinstance(entry, Command) else entry
        return command

    def help_of(self, name: str) -> str:
        """The line of a command in its group's help."""
        entry = self.data[name]
        help_: str = entry.help if isinstance(entry, Command) else entry.get_short_help_str(80)
        return help_


class LazyGroup(click.Group):
    """The commands whose names in the table begin with the group's own name, if it has one."""

    def __init__(self, group: str = "", **settings: Any) -> None:
        self._prefix = f"{group} " if group else ""
        inside = {
            name.removeprefix(self._prefix): command
            for name, command in COMMANDS.items()
            if name.startswith(self._prefix)
        }
        # `archive retag` beside `archive`; not `bank make`, which is of the group `bank`
        own = {
            name: command
            for name, command in inside.items()
            if " " not in name or name.partition(" ")[0] in inside
        }
        self._lazy = _LazyCommands(own)
        super().__init__(commands=self._lazy, **settings)

    def list_commands(self, context: click.Context) -> list[str]:
        """The first words, as the shell completes them."""
        return [name for name in super().list_commands(context) if " " not in name]

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in their sections."""
        sections = {"Commands": tuple(self.commands)} if self._prefix else _SECTIONS
        for title, names in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, self._lazy.help_of(name)) for name in names])

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it; an earlier name of a command is refused with the new one."""
        if not self._prefix and args[0] in _RENAMED:
            raise click.UsageError(f"'{args[0]}' is `taidpt {_RENAMED[args[0]]}` now.", context)
        two = " ".join(args[:2])
        if two in self.commands:
            args = [two, *args[2:]]
        return super().resolve_command(context, args)

    def invoke(self, context: click.Context) -> Any:
        """Call the command; a missing optional package becomes one line."""
        try:
            return super().invoke(context)
        except ModuleNotFoundError as error:
            name = f"{self._prefix}{context.invoked_subcommand}"
            extra = COMMANDS[name].extra if name in COMMANDS else ""
            raise missing_package(error, f"taidpt {name}", extra) from error


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
@click.version_option(__version__, prog_name="taidpt")
@click.pass_context
def cli(context: click.Context) -> None:
    """Tag pictures and video with your own list of tags, tuned from text alone."""
    if context.invoked_subcommand != _ENDS_WITH_ITS_READER:
        ignore_broken_pipe()


for _group, _help in (
    ("bank", "Make class banks, and compare them."),
    ("research", "Methods, data sets and published results."),
):
    cli.add_command(LazyGroup(_group, name=_group, help=_help))


def main() -> NoReturn:
    """Entry point of `taidpt`, also of the shell's completion."""
    _run(cli, "taidpt")


def export_main() -> NoReturn:
    """Entry point of `taidpt-export`, the same as `taidpt export`."""
    ignore_broken_pipe()
    name = "export"
    if f"export {' '.join(sys.argv[1:2])}" in COMMANDS:
        name = f"export {sys.argv.pop(1)}"
    _run(COMMANDS[name].load(), f"taidpt-{name}", COMMANDS[name].extra)


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
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
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
    variable = f"_{name.upper().replace('-', '_')}_COMPLETE"
    if instruction := os.environ.get(variable):
        from click.shell_completion import shell_complete

        return shell_complete(command, {}, name, variable, instruction)
    try:
        with command.make_context(name, sys.argv[1:], **cli.context_settings) as context:
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
    from taidpt.runtime.redact import redact  # its patterns take 2 ms to compile

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

"""One option name has one meaning, one page lists them all, and defaults are shown in one form."""

from __future__ import annotations

import click
import pytest

from scripts.options_page import PAGE, ConflictError, kind, options, table
from taidpt.cli import COMMANDS, Command

EVERY = [(name, command) for name, commands in options().items() for command in commands]


def test_the_page_is_what_the_commands_say() -> None:
    """After a change of options: python scripts/options_page.py"""
    assert PAGE.read_text("utf-8").endswith(f"\n\n{table()}")


@pytest.mark.parametrize(
    ("value", "help_text"),
    [(click.INT, "File of captions."), (click.Path(), "Something else.")],
    ids=["other value", "other meaning"],
)
def test_a_second_meaning_of_a_name_is_found(
    value: click.ParamType, help_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metavar = "FILE" if isinstance(value, click.Path) else None
    option = click.Option(["--texts"], type=value, metavar=metavar, help=help_text)
    other = click.Command("other", params=[option])
    monkeypatch.setitem(COMMANDS, "other", Command("other", ""))
    real = Command.load
    monkeypatch.setattr(Command, "load", lambda self: other if self.path == "other" else real(self))
    with pytest.raises(ConflictError, match="--texts has several meanings"):
        table()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_has_an_option_twice(command: str) -> None:
    flags = [flag for parameter in COMMANDS[command].load().params for flag in parameter.opts]
    assert sorted(flags) == sorted(set(flags))


@pytest.mark.parametrize(("name", "command"), EVERY, ids=lambda text: text)
def test_defaults_are_shown_in_one_form(name: str, command: str) -> None:
    """By click, never typed into the help; a number or a choice that may be left out has one."""
    option = options()[name][command]
    assert option.help
    assert "[default" not in option.help
    assert option.help[0].isupper() or option.help.split(":")[0].islower()
    context = click.Context(COMMANDS[command].load(), show_default=True)
    record = option.get_help_record(context)
    assert record is not None
    chosen = not option.is_flag and kind(option) in ("N", "NUMBER", "NAME") and not option.required
    if chosen and name not in NOTHING_WITHOUT:
        assert "[default: " in record[1], record


# Left out, these do nothing.
NOTHING_WITHOUT = {"--dataset", "--merge-weight"}

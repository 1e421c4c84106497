"""Write the table of docs/options.md from the commands: python scripts/options_page.py

Every option of every command is a row. An option that several commands have takes the same kind of
value in all of them, and the first sentence of its help is the same: one name, one meaning.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import click

from taidpt.cli import COMMANDS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"
_TABLE = "| option | value | meaning | commands |\n|---|---|---|---|\n"


class ConflictError(Exception):
    """One option name that has two meanings."""


def options() -> dict[str, dict[str, click.Option]]:
    """Long name → command → option."""
    found: dict[str, dict[str, click.Option]] = defaultdict(dict)
    for command, entry in COMMANDS.items():
        for option in entry.load().params:
            if isinstance(option, click.Option):
                name = next(text for text in option.opts if text.startswith("--"))
                found[name][command] = option
    return dict(sorted(found.items()))


def kind(option: click.Option) -> str:
    """The kind of an option's value; empty for a switch."""
    if option.is_flag:
        return ""
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "NAME"
    names = {"integer": "N", "integer range": "N", "float": "NUMBER", "float range": "NUMBER"}
    return names.get(option.type.name, option.type.name.upper())


def meaning(option: click.Option) -> str:
    """The first sentence of the help."""
    first, dot, _ = (option.help or "").partition(". ")
    return first + dot.strip()


def table() -> str:
    """The table, from its title to the end of the page.

    Raises:
        ConflictError: two commands give one option different values or meanings.
    """
    rows, conflicts = [], []
    for name, commands in options().items():
        uses = {(kind(option), meaning(option)) for option in commands.values()}
        if len(uses) > 1:
            conflicts.append(f"{name} has several meanings: {sorted(uses)}")
        option = next(iter(commands.values()))
        value, text = uses.pop()
        if len(commands) == 1:
            text = option.help or ""
        flags = ", ".join([*option.opts, *option.secondary_opts])
        cells = (f"`{flags}`", value and f"`{value}`", text, ", ".join(commands))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if conflicts:
        raise ConflictError("\n".join(conflicts))
    return _TABLE + "\n".join(rows) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text("utf-8").partition("| option |")[0]
    PAGE.write_text(text + table(), "utf-8")

"""Text for terminals: what may reach one, and what its encoding makes of the rest."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import unicodedata

import pytest

from taidpt.runtime.printable import printable

# Terminal escapes of 7 and 8 bits, title changes, line breaks of all kinds, text reordering.
HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\n\x0b\x0c\x85\u2028\u2029\u202e\u2066\u200b\ufeff\x7f\0"


def test_nothing_invisible_is_left() -> None:
    kept = printable("".join(map(chr, range(0x20000))))
    assert not {letter for letter in kept if unicodedata.category(letter) in ("Cc", "Zl", "Zp")}
    formats = {letter for letter in kept if unicodedata.category(letter) == "Cf"}
    assert formats == {"\u200c", "\u200d"}
    assert "\udc9b" not in kept


def test_ordinary_text_is_as_it_was() -> None:
    for text in ("hot dog", "naïve café 🚦", "👩\u200d🔧", "می\u200cخواهم", "caf\udce9.mp4", ""):
        assert printable(text) == text


def test_hostile_text_becomes_one_line_without_escapes() -> None:
    for text in (HOSTILE, f"a{HOSTILE}b", "\udc9b31m"):
        assert len(printable(text).splitlines()) <= 1
        assert "\x1b" not in printable(text)
    assert printable("\udc9b31m") == r"\x9b31m"


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "utf-8:strict"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_any_text_can_be_printed_whatever_the_encoding(environment: dict[str, str]) -> None:
    code = (
        "from taidpt.runtime.printable import plain_output\n"
        "plain_output()\n"
        "print('bar \\u2588\\u2588\\xb7\\xb7', 'caf\\udce9', '\\U0001f6a6', '\\ud800')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"caf\xe9" in done.stdout
    bars = ("bar ██··".encode(), b"bar ##\xb7\xb7", b"bar ##..")
    assert sum(bar in done.stdout for bar in bars) == 1


def test_commands_send_no_control_character_to_a_terminal() -> None:
    """Tables and lines of other commands than `tag` hold names too; what is piped is as it is."""
    code = (
        "import click\n"
        "from taidpt.runtime.storage.stdout import ignore_broken_pipe\n"
        "ignore_broken_pipe()\n"
        "{}('a\\x1b[2J\\tb\\u202e\\nc')"
    )
    piped = [sys.executable, "-c", code.format("print")]
    done = subprocess.run(piped, capture_output=True, check=True)
    assert done.stdout == "a\x1b[2J\tb\u202e\nc\n".encode()
    command = [sys.executable, "-c", code.format("click.echo")]
    main, terminal = pty.openpty()
    subprocess.run(command, stdout=terminal, check=True)
    os.close(terminal)
    assert os.read(main, 1000).replace(b"\r\n", b"\n") == b"a [2J\tb\nc\n"
    os.close(main)

"""Text for terminals, subtitles and tables: no control characters, no encoding errors."""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata

__all__ = ["clock_text", "plain_output", "printable", "printable_lines"]

# Of the invisible characters, those that emoji and several scripts need: the joiners, and tags
# in flags. All others can reorder or hide text.
_KEPT = {"\u200c", "\u200d"}
_CONTROLS = {"Cc": " ", "Zl": " ", "Zp": " ", "Cf": ""}
# What our own output draws, where the terminal's encoding lacks it.
_PLAIN = {"█": "#", "·": ".", "–": "-", "…": "...", "→": "->", "×": "x", "—": "-", "’": "'"}
_PLAIN_ERRORS = "taidpt.plain"


def printable(text: str) -> str:
    """Replace control characters by blanks, and remove invisible ones that reorder text.

    Bytes of file names that are not UTF-8 (Python's lone surrogates) stay, but for those that an
    8-bit terminal takes as control characters; these are written as \\x9b.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_printable_letter, text))


def printable_lines(text: str) -> str:
    """`printable`, with line feeds and tabs as they are."""
    return "".join(
        part if part in "\n\t" else printable(part) for part in re.split("([\n\t])", text)
    )


def _printable_letter(letter: str) -> str:
    if "\udc80" <= letter <= "\udc9f":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    if letter in _KEPT or "\U000e0020" <= letter <= "\U000e007f":
        return letter
    return _CONTROLS.get(unicodedata.category(letter), letter)


def clock_text(seconds: float) -> str:
    """Seconds as `0:03.2` or `1:02:03.4`."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def plain_output() -> None:
    """Let standard output take any text, whatever its encoding.

    Bytes of file names that are not UTF-8 come back as they were; characters that the encoding
    lacks become plain ones, or an escape such as \\xe9.
    """
    codecs.register_error(_PLAIN_ERRORS, _encode_plainly)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=_PLAIN_ERRORS)


def _encode_plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if "\udc80" <= letter <= "\udcff":
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    escape = letter.encode("ascii", "backslashreplace").decode()
    return _PLAIN.get(letter, escape), error.start + 1

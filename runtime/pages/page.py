"""The frame of every page: head, style and title around a body."""

from __future__ import annotations

import html
from importlib import resources

__all__ = ["page", "style"]

STYLE_FILES = ("colours.css", "page.css")


def style(*names: str) -> str:
    """The text of style files of this folder; without names, of all of them."""
    folder = resources.files("taidpt.runtime.pages")
    return "\n".join(folder.joinpath(name).read_text("utf-8") for name in names or STYLE_FILES)


def page(title: str, body: str, summary: str = "") -> bytes:
    """A whole page as UTF-8, without a script and without a link to anywhere else.

    Args:
        title: plain text.
        body: HTML.
        summary: plain text below the title; empty for none.
    """
    name = html.escape(title)
    lead = f'<p class="soft">{html.escape(summary)}</p>\n' if summary else ""
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>\n{style()}</style>\n</head>\n"
        f"<body><main>\n<h1>{name}</h1>\n{lead}{body}\n</main></body>\n</html>\n"
    )
    return text.encode("utf-8", "backslashreplace")

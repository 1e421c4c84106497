"""User names and passwords out of URLs, before they reach a log, an error or an output."""

from __future__ import annotations

import re

__all__ = ["redact"]

# everything between the scheme and the last @ before the path; a password may hold an @ itself
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)[^/?#\s]*@")
_QUERY_SECRETS = re.compile(
    r"(?P<key>[?&](?:pass(?:word)?|pwd|token|key|secret|user(?:name)?|auth)=)[^&#\s]*",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text with the credentials of every URL in it replaced by three stars."""
    hidden = _CREDENTIALS.sub(r"\g<scheme>***@", text)
    return _QUERY_SECRETS.sub(r"\g<key>***", hidden)

"""User names and passwords out of URLs, before they reach a log, an error or an output."""

from __future__ import annotations

import re

__all__ = ["redact"]

# GStreamer's elements take both as properties: `rtspsrc user-id=joe user-pw=secret`
_PROPERTIES = re.compile(
    r"(?P<key>\b(?:user-id|user-pw|proxy-id|proxy-pw|username|user|password|passphrase)\s*=\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s&#!,;]+)",
    re.IGNORECASE,
)
# a password with an unescaped slash; what follows a host's colon would be a port, of digits alone
_UNESCAPED = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*:/+)[^/?#\s:@\[]*:(?!\d*[/?#])[^\s]*@")
# a URL whose scheme was forgotten
_BARE = re.compile(r"(?<![\w./\-])[^/?#\s:@'\"]+:[^/?#\s:@]+@(?=[\w.\-]+[:/])")
# everything between the scheme and the last @ before the path; a password may hold an @ itself
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)[^/?#\s]*@")
_QUERY_SECRETS = re.compile(
    r"(?P<key>[?&](?:pass(?:word)?|pwd|token|key|secret|user(?:name)?|auth)=)[^&#\s]*",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text with the credentials of every URL and pipeline in it replaced by three stars."""
    hidden = _CREDENTIALS.sub(r"\g<scheme>***@", text)
    hidden = _UNESCAPED.sub(r"\g<scheme>***@", hidden)
    hidden = _BARE.sub("***@", hidden)
    hidden = _QUERY_SECRETS.sub(r"\g<key>***", hidden)
    return _PROPERTIES.sub(r"\g<key>***", hidden)

"""Removes user names, passwords and keys from URLs and pipelines, in any text that is shown.

Where a text can be read in two ways, the reading that hides more counts: `rtsp://a:9/b@c` may be
a path of the host `a`, or a password `9/b`. A password with an @, a blank and a whole URL in it
looks like two URLs in a sentence; `protect` hides it, because the user's own text is one URL.
"""

from __future__ import annotations

import re

__all__ = ["encoding_hint", "protect", "redact"]

_START = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:/{1,3}")  # FFmpeg also writes `rtsp:/host`
# Within a URL that has a password, another URL begins only behind one of these.
_BOUNDARY = re.compile(r"(?<=[\s'\"(<,;])[A-Za-z][A-Za-z0-9+.\-]*:/{1,3}")
_USER = re.compile(r"[^/\s:@\[]*")
_AT = re.compile(r"@(?=[\w\[%.\-])")
_PORT = re.compile(r":\d+(?=[/?#\s'\"]|$)")
_SURE_HOST = re.compile(r"localhost|(?=.*\.)[\w.\-]+")
_HOST_LIKE = re.compile(r"\[|[\w\-]+(?:\.[\w\-]+|[:/?])")
# Names of secrets in queries, and of GStreamer's properties: any name that contains one of these.
_SECRET = (
    r"[\w.\-]*(?:pass|pas\b|psw|pw|token|secret|key|auth|sig|cred|user|usr|login|account|"
    r"stream-?id|session|jwt|bearer|otp|hmac|proxy-id)[\w.\-]*"
)
# Each pattern's group `hide` is replaced.
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # a URL whose scheme was forgotten
        r"(?<![\w./\-])(?P<hide>[^/?#\s:@'\"]+:(?!/)[^\s@'\"]+)@(?=[\w.\-]+[:/])",
        rf"[?&#;]{_SECRET}=(?P<hide>[^&\s'\"]*)",
        r"\b(?:Bearer|Basic)\s+(?P<hide>[\w.~+/=\-]{6,})",
        # properties of GStreamer, quoted in any of a shell's ways
        rf"(?:^|(?<=[\s!])){_SECRET}\s*=\s*(?P<hide>\"[^\"]*\"|'[^']*'|(?:\\.|[^\s\"'\\])+)",
        rf"(?P<quote>[\"']){_SECRET}=(?P<hide>(?:(?!(?P=quote)).)*)",
    )
)
# The last part of an RTMP path is the key with which a stream is published.
_RTMP_KEY = re.compile(r"(\brtmp[a-z]*:/{1,3}(?!/)[^/\s'\"]*/[^/\s'\"?]+/)[^\s'\"]+", re.IGNORECASE)
# Credentials of the URLs that the user gave, each with its @; replaced as a whole, never changed.
_protected: tuple[str, ...] = ()
_RESERVED = re.compile(r"[/?#@\s]|%(?![0-9A-Fa-f]{2})")


def protect(url: str) -> None:
    """Let `redact` hide the credentials of this URL wherever they are repeated, also by `repr`."""
    global _protected  # noqa: PLW0603
    match = _START.match(url)
    credentials = _credentials(url[match.end() :]) if match else ""
    if ":" in credentials:  # a user name alone may be any word
        _protected += tuple({credentials, repr(credentials)[1:-1]} - {*_protected})


def redact(text: str) -> str:
    """Replace the credentials of every URL and pipeline in a text by three stars."""
    spans = [match.span("hide") for pattern in _PATTERNS for match in pattern.finditer(text)]
    for credentials in _protected:
        places = re.finditer(rf"(?<!\w){re.escape(credentials)}", text)
        spans += [(place.start(), place.end() - 1) for place in places]
    position = 0
    while (match := _START.search(text, position)) is not None:
        position = match.end()
        credentials = _credentials(_url_part(text, position))
        if credentials:
            spans.append((position, position + len(credentials) - 1))
            position += len(credentials)
    parts: list[str] = []
    shown = 0
    for start, end in sorted(spans):
        if start > shown or not parts:
            parts += [text[shown:start], "***"]
        shown = max(shown, end)
    return _RTMP_KEY.sub(r"\1***", "".join([*parts, text[shown:]]))


def encoding_hint(url: str) -> str:
    """What to do about a password with reserved characters; empty for URLs without one."""
    match = _START.match(url)
    credentials = _credentials(url[match.end() :]) if match else ""
    if not _RESERVED.search(credentials[:-1]):
        return ""
    return (
        "; write special characters of a password percent-encoded: # is %23, / is %2F, ? is %3F, "
        "@ is %40, a blank is %20, % is %25"
    )


def _url_part(text: str, start: int) -> str:
    """What may belong to a URL: all up to the next URL, or to the end of the line.

    Before a complete pair of user and password, another URL is taken for a part of the password.
    """
    line, _, _ = text[start:].partition("\n")
    for boundary in _BOUNDARY.finditer(line):
        if _AT.search(line, 0, boundary.start()):
            return line[: boundary.start()]
    return line


def _credentials(rest: str, has_user: bool = False) -> str:
    """What stands before the host in the part of a URL behind `scheme://`, with its @.

    With `has_user` a user name with an @ was there already, such as the `joe` of joe@site.com.
    """
    user = _USER.match(rest)
    assert user is not None  # the pattern matches an empty text
    end = user.end()
    if rest[end : end + 1] == "@":
        return rest[: end + 1] + _credentials(rest[end + 1 :], has_user=True)
    if rest[end : end + 1] != ":":
        return ""
    ats = [match.start() for match in _AT.finditer(rest, end)]
    if not ats:
        return ""
    is_port = _PORT.match(rest, end) is not None and not has_user
    if is_port and _SURE_HOST.fullmatch(user[0]) and not _HOST_LIKE.match(rest, ats[-1] + 1):
        return ""
    return rest[: ats[-1] + 1]

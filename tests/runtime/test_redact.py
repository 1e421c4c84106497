"""Passwords and keys of every kind of URL and pipeline, and what stays readable."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given, settings, strategies as st

from taidpt.runtime import redact as redact_module
from taidpt.runtime.errors import InputError
from taidpt.runtime.redact import encoding_hint, protect, redact
from taidpt.runtime.sinks.mqtt import open_mqtt
from taidpt.runtime.sinks.webhook import open_webhook
from taidpt.runtime.sources.address import parse_address

SECRET = "zQ7hidden9x"
# What people write into passwords without encoding it, and what other libraries make of a URL.
around = st.text("#?/@:%&=+!$*,;()[]{}~|^ 0123456789ab.-_", max_size=12)
SCHEMES = ("rtsp", "RTSPS", "http", "https", "rtmp", "srt", "mqtt", "mqtts", "udp")
HOSTS = ("127.0.0.1:1/ch1", "cam", "cam.local:554/a/b?c=d", "[fe80::1]:554/1", "host:80", "h/x")
LINES = (
    "{0}",
    "{0}: cannot be opened: [Errno 5] Input/output error: '{0}'",
    'error: "{0}" ended; opening {0} again',
    "file a:b, then {0}\nand {0}",
)


@pytest.fixture(autouse=True, scope="module")
def nothing_protected() -> Iterator[None]:
    """Other tests of this process open URLs, whose credentials stay hidden."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redact_module, "_protected", ())
        yield


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SCHEMES),
    st.sampled_from(["admin", "a", "", "user-1", "joe@x.com", "%40me"]),
    around,
    around,
    st.sampled_from(HOSTS),
    st.sampled_from(LINES),
)
@example("rtsp", "admin", "2024?", "", "cam", "{0}")
@example("rtsp", "", "#", "/9", "h/x", "{0}")
def test_no_password_of_a_url_survives(
    scheme: str, user: str, before: str, after: str, host: str, line: str
) -> None:
    password = before + SECRET + after
    assume(not re.search(r"[\s,;(]\w[\w+.\-]*:/", f"{password}@"))  # looks like two URLs
    url = f"{scheme}://{user}:{password}@{host}"
    shown = redact(line.format(url))
    assert SECRET not in shown
    assert host.split("/", maxsplit=1)[0].split(":", maxsplit=1)[0] in shown
    assert redact(shown) == shown
    if quote(password, safe="") == password:
        assert encoding_hint(f"{scheme}://me:{password}@{host}") == ""
    if set(password) & set("#?/@ "):
        assert "percent-encoded" in encoding_hint(f"{scheme}://me:{password}@{host}")


# Parts of a password that look like the end of one URL and the beginning of another.
pieces = st.lists(
    st.sampled_from(["@", " ", "http://", "rtsp://cam/1 ", " or ", "x@y", ", ", "'", '"', "me:pw@"])
    | st.text("#?/@:%&\\'\" é\t", max_size=3),
    max_size=6,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SCHEMES[:-1]),
    st.sampled_from(["admin", "", "joe@x.com"]),
    pieces,
    pieces,
    st.sampled_from(HOSTS),
    st.sampled_from([*LINES, "{0!r}: no answer from {0}", "{1} {0} {1}: {0} {0}"]),
)
@example("rtsp", "admin", "ab@", " http://x", "cam", "{0}")
@example("rtsp", "admin", "p@x ", " http://y", "cam", "cannot open {0} or {1}")
def test_no_password_of_a_given_url_survives(
    scheme: str, user: str, before: str, after: str, host: str, line: str
) -> None:
    """Also where the password holds whole URLs, in a sentence with other URLs."""
    url = f"{scheme}://{user}:{before}{SECRET}{after}@{host}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redact_module, "_protected", ())
        protect(url)
        assert SECRET not in redact(url)
        assert SECRET not in redact(line.format(url, "rtsp://d:e@f/1"))
        assert redact(redact(url)) == redact(url)
        assert redact("mama@home.mp4 at 12:30") == "mama@home.mp4 at 12:30"


@pytest.mark.parametrize(
    ("scheme", "open_it"),
    [
        ("rtsp", parse_address),
        ("http", parse_address),
        ("tcps", parse_address),
        ("http", lambda url: open_webhook(url).close()),
        ("mqtt", lambda url: open_mqtt(url).close()),
    ],
)
def test_whoever_takes_a_url_protects_it(scheme: str, open_it: Callable[[str], object]) -> None:
    url = f"{scheme}://me:p@{SECRET} http://x@127.0.0.1:1/a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redact_module, "_protected", ())
        assert SECRET in redact(f"{url} failed")  # looks like two URLs, the second without a user
        with contextlib.suppress(InputError):
            open_it(url)
        assert SECRET not in redact(f"{url} failed")


# fmt: off
KEYS = [
    "access_token", "api_key", "apikey", "key", "sig", "signature", "X-Amz-Signature", "streamid",
    "stream-id", "loginuse", "loginpas", "user_pw", "user", "pwd", "passwd", "password", "pass",
    "pas", "auth", "authkey", "token", "jwt", "session_id", "secret", "client_secret",
    "credential", "account", "otp", "usr", "psw",
]
# fmt: on


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(KEYS),
    st.text("#/@:%=+!$*,;()0123456789ab.-_", max_size=8),
    st.sampled_from(["?", "?a=1&", "?a=1;", "#", "/p?x=y&"]),
    st.sampled_from(["", "&b=2"]),
    st.sampled_from(LINES),
)
def test_no_secret_of_a_query_survives(
    key: str, before: str, start: str, end: str, line: str
) -> None:
    url = f"https://cam.local:8443/v{start}{key}={before}{SECRET}{end}"
    assert SECRET not in redact(line.format(url))


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["user-pw", "user-id", "passphrase", "proxy-pw", "streamid", "password"]),
    st.text("#?/@:%&+$*,;()0123456789ab.-_!", max_size=8),
    st.sampled_from(["{0}={1}", '{0}="{1} b"', "{0} = '{1} b'", '"{0}={1} b"', "{0}={1}\\ b"]),
)
def test_no_secret_of_a_pipeline_survives(key: str, before: str, form: str) -> None:
    part = form.format(key, before + SECRET)
    shown = redact(f"gst:rtspsrc location=rtsp://cam/1 {part} ! decodebin")
    assert SECRET not in shown
    assert shown.startswith("gst:rtspsrc location=rtsp://cam/1 ")
    assert shown.endswith(" ! decodebin")


def test_keys_in_paths_are_hidden() -> None:
    assert redact("rtmp://live.host/app/k3y-1234?x=1") == "rtmp://live.host/app/***"
    assert redact("rtmps://live.host:443/app/a/b") == "rtmps://live.host:443/app/***"
    assert redact("rtmp://live.host/app") == "rtmp://live.host/app"
    assert redact("Authorization: Bearer abc.def-123") == "Authorization: Bearer ***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://user:pa@ss/word@cam.local:554/1?x=1", "rtsp://***@cam.local:554/1?x=1"),
        ("rtsp://user:pa/ss@cam.local:554/1", "rtsp://***@cam.local:554/1"),
        ("rtsp:/user:pass@cam/1: no such file", "rtsp:/***@cam/1: no such file"),
        ("user:pass@cam.local/1: no such file", "***@cam.local/1: no such file"),
        ("rtsp://cam.local:554/@home/x@y", "rtsp://cam.local:554/@home/x@y"),
        ("rtsp://[fe80::1]:554/a@b", "rtsp://[fe80::1]:554/a@b"),
        (
            'gst:rtspsrc location=rtsp://cam/1 user-id=joe user-pw="a b" ! decodebin',
            "gst:rtspsrc location=rtsp://cam/1 user-id=*** user-pw=*** ! decodebin",
        ),
        ("clip.mp4: note 12:30@noon", "clip.mp4: note 12:30@noon"),
        ("rtsp://user:pass@cam.local:554/1", "rtsp://***@cam.local:554/1"),
        ("rtsp://user:p@ss@cam.local/1", "rtsp://***@cam.local/1"),
        ("http://cam/v?user=me&password=x&y=1", "http://cam/v?user=***&password=***&y=1"),
        (
            "cannot open rtsp://a:b@c/1 or rtsp://d:e@f",
            "cannot open rtsp://***@c/1 or rtsp://***@f",
        ),
        ("plain/file@home.mp4", "plain/file@home.mp4"),
    ],
)
def test_credentials_are_hidden(text: str, expected: str) -> None:
    assert redact(text) == expected

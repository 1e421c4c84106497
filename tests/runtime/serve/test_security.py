"""What other machines, other pages and greedy clients may not do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.loopback import is_loopback
from taidpt.runtime.serve.security import Limits, read_token
from tests.runtime.serve.server import Server, running

TOKEN = "a-token-of-enough-letters"
EDIT = "/v1/tags?tag=dog"


@pytest.fixture(scope="module")
def guarded(
    swappable: Path, video_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("guarded")
    with running(swappable, data, str(video_path), token=TOKEN) as server:
        yield server


def test_a_token_is_needed_but_for_the_form_and_the_heartbeat(guarded: Server) -> None:
    for path in ("/", "/v1/cameras", "/v1/live", "/v1/openapi.json", "/readyz", "/v1/none"):
        assert guarded.ask(path).status == 401
        assert guarded.ask(path, Authorization="Bearer wrong").status == 401
        assert guarded.ask(path, Cookie="taidpt=wrong").status == 401
    for path in ("/login", "/healthz", "/static/style.css"):
        assert guarded.ask(path).status == 200
    assert guarded.ask("/v1/cameras", Authorization=f"Bearer {TOKEN}").status == 200
    assert guarded.ask("/v1/cameras", Authorization=f"Bearer {TOKEN}", Host="house").status == 200


def test_a_browser_logs_in_and_keeps_a_cookie_that_other_sites_cannot_use(guarded: Server) -> None:
    wrong = guarded.ask("/login", "POST", b"token=guess")
    assert (wrong.status, wrong.headers["Location"]) == (303, "/login?failed")
    answer = guarded.ask("/login", "POST", f"token={TOKEN}".encode())
    cookie = answer.headers["Set-Cookie"]
    assert TOKEN not in cookie
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    own = cookie.partition(";")[0]
    assert guarded.ask("/v1/cameras", Cookie=own).status == 200
    body = {"on": 1.0}
    assert guarded.ask(EDIT, "PATCH", body, Cookie=own, Origin="http://evil.example").status == 403
    assert guarded.ask(EDIT, "PATCH", body, Cookie=own, Origin="null").status == 403
    assert guarded.ask(EDIT, "PATCH", body, Cookie=own, Sec_Fetch_Site="cross-site").status == 403
    assert guarded.ask(EDIT, "PATCH", body, Cookie=own, Origin=guarded.url).status == 200


def test_a_server_without_a_token_answers_only_as_this_machine(server: Server) -> None:
    for host in (
        "evil.example",
        "localhost.evil.example",
        "",
        "127.0.0.1.evil.example",
        "10.0.0.1",
    ):
        assert server.ask("/v1/cameras", Host=host).status == 403
    for host in ("localhost", f"127.0.0.1:{server.port}", "[::1]:80"):
        assert server.ask("/v1/cameras", Host=host).status == 200
    snapshot = "/v1/cameras/cam1/snapshot"
    assert server.ask(snapshot, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").status == 403
    answer = server.ask("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")
    assert answer.status == 200


def test_every_answer_forbids_inline_scripts_and_frames(server: Server) -> None:
    for path in ("/", "/v1/cameras", "/v1/none", "/static/app.js"):
        headers = server.ask(path).headers
        policy = headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
    page = server.ask("/").body.decode()
    assert "<script>" not in page
    assert " style=" not in page
    assert "http" not in page.replace("https://www.w3.org", "").partition("<body>")[0]


def test_bodies_and_requests_are_limited(swappable: Path, video_path: Path, tmp_path: Path) -> None:
    limits = Limits(body_bytes=1000, requests=0.01, burst=12)
    with running(swappable, tmp_path, str(video_path), limits=limits) as server:
        large = server.ask("/v1/tag", "POST", bytes(1001), Content_Type="image/png")
        assert large.status == 413
        chunks = (bytes(400) for _ in range(4))  # without a length
        assert server.ask("/v1/tag", "POST", chunks, Content_Type="image/png").status == 413
        answers = [server.ask("/v1/bank") for _ in range(12)]
        assert answers[-1].status == 429
        assert answers[-1].headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.0.5", "house.local")),
    ],
)
def test_another_address_needs_a_token(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    if loopback:
        assert read_token(None, host) is None
    else:
        with pytest.raises(InputError, match=r"clients need a token: .*--token-file"):
            read_token(None, host)


@pytest.mark.parametrize(
    "text", ["", "short", "with a blank in its middle", "ünicode-of-many-letters"]
)
def test_a_token_file_that_holds_too_little_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(text, "utf-8")
    with pytest.raises(InputError, match="openssl rand"):
        read_token(str(tmp_path / "token"), "0.0.0.0")
    with pytest.raises(InputError, match="cannot be read as a token"):
        read_token(str(tmp_path / "missing"), "0.0.0.0")

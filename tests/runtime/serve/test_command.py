"""`taidpt serve` as a process: a site.yaml, signals, clashes, and secrets that stay inside."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from taidpt.cli import cli
from taidpt.runtime.errors import InputError
from tests.runtime.serve.server import running
from tests.runtime.sinks.senders import free_port, wait_for

TOKEN = "a-token-of-enough-letters"
SITE = """\
bundle: {bundle}
data: {data}
token_file: {token}
device: cpu
threads: 1
cameras:
  - {{id: yard, source: {video}}}
  - {{id: away, source: "rtsp://joe:s3cret-word@127.0.0.1:{port}/1"}}
rules:
  - {{id: dog-alone, tag: dog, between: "00:00-24:00"}}
"""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "taidpt", "serve", *words]


@contextlib.contextmanager
def process(port: int, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A serving process, killed at the end if it still runs."""
    child = subprocess.Popen(
        command("--port", str(port), *words), stderr=subprocess.PIPE, text=True
    )
    try:
        assert wait_for(lambda: status(port, "/healthz") == 200, 60)
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def status(port: int, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_a_site_runs_until_sigterm_and_refuses_a_second_one(
    swappable: Path, video_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    site, port = tmp_path / "site.yaml", free_port()
    values = {"bundle": swappable, "data": tmp_path / "data", "token": tmp_path / "token"}
    site.write_text(SITE.format(**values, video=video_path, port=free_port()))
    with process(port, "--config", str(site)) as child:
        assert status(port, "/v1/cameras") == 401
        authorised = {"Authorization": f"Bearer {TOKEN}"}
        assert wait_for(lambda: status(port, "/v1/events/1", **authorised) == 200)
        for words, expected in (
            (("--port", str(port)), "cannot listen on 127.0.0.1"),
            (("--port", "0"), "another `taidpt serve` uses this folder"),
        ):
            done = subprocess.run(
                command("--config", str(site), *words), capture_output=True, text=True, check=False
            )
            assert done.returncode == 2
            assert expected in done.stderr
            assert len(done.stderr.splitlines()) == 1
        child.send_signal(signal.SIGTERM)
        _, log = child.communicate(timeout=30)
        assert child.returncode == 0
        assert "Traceback" not in log
        assert "s3cret-word" not in log
        assert "away: rtsp://***@127.0.0.1" in log


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "no bundle; give BUNDLE and a SOURCE, or --config site.yaml"),
        (("street.taidpt",), "there is no camera; give a SOURCE"),
        (("street.taidpt", "none.mp4"), "none.mp4: no such file"),
        (("street.taidpt", "rtsp://c/1", "--host", "0.0.0.0"), "clients need a token"),
        (("none.taidpt", "rtsp://c/1", "--port", "0"), "none.taidpt"),
    ],
)
def test_a_wrong_command_is_one_line(
    words: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    error = CliRunner().invoke(cli, ["serve", *words]).exception
    assert isinstance(error, InputError)
    assert expected in str(error)


def test_passwords_of_cameras_are_in_no_answer_and_no_log(
    swappable: Path, video_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also those with the letters that addresses, JSON and HTML are made of."""
    passwords = (
        "pl41n-word",
        "w1th:colon",
        "w1th@at",
        "w1th/slash",
        'w1th"quote',
        "w1th<b>tag",
        "wïth",
    )
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{closed.getsockname()[1]}"
        written = [*passwords, *(urllib.parse.quote(word, safe="") for word in passwords)]
        sources = [f"rtsp://joe:{word}@{at}/{number}" for number, word in enumerate(written)]
        sources += [
            f"http://{at}/a.ts?token=t0ken-word",
            f"gst:rtspsrc user-pw=pr0perty location=rtsp://{at}",
        ]
        with running(swappable, tmp_path, str(video_path), *sources, wait=False) as server:
            cameras = list(server.site.cameras.values())[1:]
            tried = cameras[: len(written)]
            assert wait_for(lambda: all(camera.source.status.error for camera in tried), 60)
            answers = b"".join(
                server.ask(path).body
                for path in ("/", "/v1/cameras", "/v1/cameras/cam2", "/v1/health", "/metrics")
            )
        shown = answers.decode() + caplog.text
    for word in (*written, "t0ken-word", "pr0perty"):
        assert word not in shown, word
        assert word.encode().decode("latin-1") not in shown

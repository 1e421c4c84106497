"""Progress: bars on a terminal, one line a stage elsewhere."""

from __future__ import annotations

import io

import pytest

from taidpt.progress import BarProgress


class Terminal(io.StringIO):
    """Standard error that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def run_two_stages() -> None:
    with BarProgress() as progress:
        progress.start("Loading", 1)
        progress.advance()
        progress.start("Tuning", 40, done=10)
        for step in range(30):
            progress.advance(detail=f"loss {step}.5")
        progress.note("checkpoint [red]kept[/red]")


def test_a_stage_is_one_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    run_two_stages()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["Loading", "Tuning: 40", "checkpoint [red]kept[/red]"]


def test_a_terminal_shows_a_bar_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    run_two_stages()
    lines = [line.split("\r")[-1] for line in terminal.getvalue().rstrip("\n").split("\n")]
    assert lines[0].startswith("Loading: 100%")
    assert "checkpoint [red]kept[/red]" in lines
    assert lines[-1].startswith("Tuning: 100%")
    assert "40/40" in lines[-1]
    assert "loss 29.5" in lines[-1]

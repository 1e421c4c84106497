"""Write the table of docs/boards.md from reports: python scripts/boards_page.py

Each file of benchmarks/results/boards is what `taidpt report` wrote on one board. A row is a file;
the page holds no figure from elsewhere.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `benchmarks`

from benchmarks.harness import ROOT, marked

REPORTS = ROOT / "benchmarks" / "results" / "boards"
PAGE = ROOT / "docs" / "boards.md"
MARKS = "<!-- boards -->\n", "<!-- end of boards -->"
_HEAD = (
    "| board | runs on | model, tags | batch 1, 8: ms a frame | 720p stream, frames/s "
    "| LoadGen: SingleStream p90 ms, MultiStream p99 ms, Offline frames/s | W p50 | °C | parity "
    "| date |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)


def table(reports: list[dict[str, Any]]) -> str:
    """The table, fastest board first."""
    rows = sorted(reports, key=lambda report: report["bench"]["rows"][0]["tagger_ms"])
    return _HEAD + "".join(map(_row, rows))


def _row(report: dict[str, Any]) -> str:
    bench, modes = report["bench"], report["findings"]
    mode = next((f", {one['state']}" for one in modes if one["what"] == "power mode"), "")
    cells = (
        report["board"] + mode,
        f"{bench['device']}: {bench['backend']}",
        f"{bench['model']['name']}, {bench['tags']}",
        ", ".join(f"{row['tagger_ms']:.1f}" for row in bench["rows"]),
        f"{bench['rows'][0]['stream_fps']:.0f}",
        _loadgen(report["loadgen"]),
        ", ".join(f"{name} {watts[0]:.1f}" for name, watts in report["watts"].items()) or "–",
        _warmest(report["celsius"]["after"]),
        "held" if report["verify"]["passed"] else "**missed**",
        report["date"],
    )
    return f"| {' | '.join(cells)} |\n"


def _loadgen(found: dict[str, Any] | str) -> str:
    if isinstance(found, str):
        return "not run"
    values = ((next(iter(one.values())), one["valid"] == "VALID") for one in found.values())
    return ", ".join(f"{value:.1f}" + ("" if valid else " (too short)") for value, valid in values)


def _warmest(celsius: dict[str, float]) -> str:
    return f"{max(celsius.values()):.0f}" if celsius else "–"


def main() -> None:
    reports = [json.loads(path.read_text("utf-8")) for path in sorted(REPORTS.glob("*.json"))]
    page = PAGE.read_text("utf-8")
    PAGE.write_text(marked(page, *MARKS, table(reports)), "utf-8")


if __name__ == "__main__":
    main()

"""The GPU suite's stored runs as text, and as the tables in the documents.

    python benchmarks/gpu_table.py           # print Markdown
    python benchmarks/gpu_table.py --write   # put it between the marks in the documents

Reads the newest JSON of each device in benchmarks/results/; without one it says that nothing was
run. A test holds the documents to it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

__all__ = ["BEGIN", "DOCUMENTS", "markdown", "newest", "replaced", "test_lines", "text_table"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# those that have the marks
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "kernels.md")
BEGIN, END = "<!-- gpu-table: made by benchmarks/gpu_table.py -->", "<!-- end of gpu-table -->"
NOT_RUN = "not run"
COLUMNS = (
    "ours ms",
    "limit ms",
    "of limit",
    "× eager",
    "× compiled",
    "extra memory MB",
    "launches",
    "targets",
)


def _cells(row: dict[str, Any]) -> list[str]:
    times = {name: f"{entry['p50']:.3f}" for name, entry in row.get("ms", {}).items()}
    memory = row.get("memory_bytes", {}).get("ours")
    targets = row.get("targets")
    return [
        times.get("ours", "failed" if row.get("failed") else NOT_RUN),
        times.get("limit", "–" if "ms" in row else NOT_RUN),
        f"{row['of_limit']:.0%}" if "of_limit" in row else "–",
        f"{row['times_eager']:.2f}" if "times_eager" in row else NOT_RUN,
        f"{row['times_compiled']:.2f}" if "times_compiled" in row else NOT_RUN,
        "–" if memory is None else f"{memory / 2**20:.1f}",
        str(row.get("launches", "–")),
        "–" if targets is None else _met(targets),
    ]


def _met(targets: list[dict[str, Any]]) -> str:
    missed = [target["what"] for target in targets if not target["met"]]
    return "met" if not missed else "missed: " + ", ".join(missed)


def test_lines(record: dict[str, Any]) -> list[str]:
    """One line a test part, then what was not run and why."""
    lines = []
    for name, result in record["tests"].items():
        state = "FAILED" if result.get("failed") else "passed"
        worst = f", largest error {result['worst']:.1e}" if "worst" in result else ""
        lines.append(f"{name}: {state}, {result.get('run', 0)} of {result.get('cases', 0)}{worst}")
        lines += [f"  {failure}" for failure in result.get("failed", [])[:3]]
    failed = [row for row in record["rows"] if row.get("failed")]
    lines += [f"{row['name']}: FAILED\n  {row['failed'][0]}" for row in failed]
    return [*lines, *(f"{each['name']}: {NOT_RUN}, {each['why']}" for each in record["not_run"])]


def text_table(record: dict[str, Any]) -> str:
    """Aligned columns for a terminal."""
    rows = [["", *COLUMNS], *([row["name"], *_cells(row)] for row in record["rows"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def markdown(records: list[dict[str, Any]]) -> str:
    """A table for each device."""
    if not records:
        return f"GPU benchmarks: {NOT_RUN}; no machine with a GPU was at hand."
    return "\n\n".join(_one_device(record) for record in records)


def _one_device(record: dict[str, Any]) -> str:
    machine = record["machine"]
    lines = [
        f"{machine['device']}, PyTorch {machine['torch']}, Triton {machine['triton']}, "
        f"{machine['date'][:10]}, bf16; commit {machine['commit'][:12]}:",
        "",
        f"| | {' | '.join(COLUMNS)} |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    lines += [f"| {row['name']} | {' | '.join(_cells(row))} |" for row in record["rows"]]
    tests = [f"- {line}" for line in test_lines(record)]
    return "\n".join([*lines, "", *tests])


def newest(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The latest stored run of each device, by its name."""
    latest: dict[str, dict[str, Any]] = {}
    records = [json.loads(path.read_text("utf-8")) for path in folder.glob("gpu-*.json")]
    for record in sorted(records, key=lambda record: str(record["machine"]["date"])):
        latest[record["machine"]["device"]] = record
    return [latest[device] for device in sorted(latest)]


def replaced(document: str, table: str) -> str:
    """The document with this table between its marks; without marks as it was."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{table}\n{END}", document)


def main() -> int:
    """Print, or write into the documents."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    names = ", ".join(str(path.relative_to(ROOT)) for path in DOCUMENTS)
    parser.add_argument("--write", action="store_true", help=f"between the marks in {names}")
    write, table = parser.parse_args().write, markdown(newest())
    if not write:
        print(table)
        return 0
    for path in DOCUMENTS:
        path.write_text(replaced(path.read_text("utf-8"), table), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

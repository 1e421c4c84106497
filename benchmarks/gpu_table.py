"""The GPU suite's results as text, or as Markdown: `python benchmarks/gpu_table.py`.

Reads the newest JSON in benchmarks/results/; without one it says that nothing was run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["markdown", "test_lines", "text_table"]

RESULTS = Path(__file__).resolve().parent / "results"
NOT_RUN = "not run"
COLUMNS = ("ours ms", "limit ms", "of limit", "× eager", "× compiled", "extra memory MB")


def _cells(row: dict[str, Any]) -> list[str]:
    times = {name: f"{entry['p50']:.3f}" for name, entry in row.get("ms", {}).items()}
    memory = row.get("memory_bytes", {}).get("ours")
    return [
        times.get("ours", "failed" if row.get("failed") else NOT_RUN),
        times.get("limit", "–" if "ms" in row else NOT_RUN),
        f"{row['of_limit']:.0%}" if "of_limit" in row else "–",
        f"{row['times_eager']:.2f}" if "times_eager" in row else NOT_RUN,
        f"{row['times_compiled']:.2f}" if "times_compiled" in row else NOT_RUN,
        "–" if memory is None else f"{memory / 2**20:.1f}",
    ]


def test_lines(record: dict[str, Any]) -> list[str]:
    """One line a test part, then what there was no time for."""
    lines = []
    for name, result in record["tests"].items():
        state = "FAILED" if result.get("failed") else "passed"
        worst = f", largest error {result['worst']:.1e}" if "worst" in result else ""
        lines.append(f"{name}: {state}, {result.get('run', 0)} of {result.get('cases', 0)}{worst}")
        lines += [f"  {failure}" for failure in result.get("failed", [])[:3]]
    return [*lines, *(f"{name}: {NOT_RUN}" for name in record["not_run"])]


def text_table(record: dict[str, Any]) -> str:
    """Aligned columns for a terminal."""
    rows = [["", *COLUMNS], *([row["name"], *_cells(row)] for row in record["rows"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def markdown(record: dict[str, Any] | None) -> str:
    """The README's table."""
    if record is None:
        return f"GPU benchmarks: {NOT_RUN}; no machine with a GPU was at hand."
    machine = record["machine"]
    head = ["| |", " | ".join(COLUMNS), "|"]
    lines = [
        f"{machine['device']}, PyTorch {machine['torch']}, Triton {machine['triton']}, "
        f"{machine['date'][:10]}, bf16, D = 1,024; commit {machine['commit'][:12]}",
        "",
        " ".join(head),
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    lines += [f"| {row['name']} | {' | '.join(_cells(row))} |" for row in record["rows"]]
    return "\n".join(lines)


def newest() -> dict[str, Any] | None:
    """The latest stored run, if any."""
    records = [json.loads(path.read_text("utf-8")) for path in RESULTS.glob("gpu-*.json")]
    latest: dict[str, Any] | None = max(
        records, key=lambda record: record["machine"]["date"], default=None
    )
    return latest


if __name__ == "__main__":
    print(markdown(newest()))

"""The results of rtx_gpu.py as a few lines of text: `rtx_table.py FILE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["lines"]

_LONGEST = 160


def lines(content: dict[str, Any]) -> list[str]:
    """A line a part, and the numbers that matter below it."""
    shown: list[str] = []
    for name, result in content["tests"].items():
        verdict = "FAILED" if result.get("failed") else "refused" if "refused" in result else "ran"
        shown.append(f"{name}: {verdict}, {result['seconds']} s")
        shown += [f"    {line}"[:_LONGEST] for line in _details(result)]
    shown += [f"{entry['name']}: not run, {entry['why']}" for entry in content["not_run"]]
    return shown


def _details(result: dict[str, Any]) -> Iterator[str]:
    yield from result.get("failed", ())
    if "where" in result:
        yield f"at {result['where']}"
    if "refused" in result:
        yield str(result["refused"])
    for target in result.get("targets", ()):
        verdict = "met" if target["met"] else "MISSED"
        yield f"{target['what']}: {target['value']:.3g}, {verdict}"
    yield from _numbers(result)


def _numbers(entry: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Middle times and largest differences, with where they stand."""
    if not isinstance(entry, dict):
        return
    if "p50" in entry:
        ratio = f", ratio {entry['ratio']:.3f}" if "ratio" in entry else ""
        yield f"{' / '.join(path)}: p50 {entry['p50']:.3f} ms{ratio}"
        return
    values = list(entry.values())
    if path and "difference" in path[-1] and values and all(isinstance(v, float) for v in values):
        yield f"{' / '.join(path)}: {max(values):.2e}"
        return
    for name, value in entry.items():
        yield from _numbers(value, (*path, str(name)))


if __name__ == "__main__":
    print("\n".join(lines(json.loads(Path(sys.argv[1]).read_text("utf-8")))))

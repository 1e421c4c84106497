"""Imports run down: read from the code, and proved in a process of its own."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import REPOSITORY

# What each room may import of ours.
ALLOWED = {
    "runtime": {"runtime"},
    "kernels": {"kernels"},
    "taidpt": {"taidpt", "kernels", "runtime"},
    "export": {"export", "taidpt", "kernels", "runtime"},
}
# What stands at the top of a command module, so that --help is quick.
VERSION_IMPORT = "from taidpt import __version__"
COMMAND_TOP_LEVEL = {"click", "taidpt", "__future__"} | set(sys.stdlib_module_names)


def our_imports(source: Path) -> Iterator[tuple[int, str]]:
    """Line and room of each import of ours, wherever in the file it stands."""
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "taidpt":
                room = parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "taidpt"
                yield node.lineno, room


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_run_down(room: str) -> None:
    wrong = [
        f"{source.relative_to(REPOSITORY)}:{line} imports {other}"
        for source in sorted((REPOSITORY / room).rglob("*.py"))
        for line, other in our_imports(source)
        if other not in ALLOWED[room] and not _asks_the_version(source, line)
    ]
    assert not wrong, "\n".join(wrong)


def _asks_the_version(source: Path, line: int) -> bool:
    """The one thing that the ground floor may ask of the house."""
    return source.read_text("utf-8").splitlines()[line - 1].strip() == VERSION_IMPORT


def test_command_modules_import_only_click_and_the_standard_library_at_the_top() -> None:
    for source in (*REPOSITORY.glob("*/commands.py"), *REPOSITORY.glob("taidpt/**/commands.py")):
        for node in ast.parse(source.read_text("utf-8")).body:
            if isinstance(node, ast.Import):
                tops = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                tops = {(node.module or "").split(".")[0]}
            else:
                continue
            assert tops <= COMMAND_TOP_LEVEL, f"{source}:{node.lineno} imports {tops}"


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("taidpt", {"torch", "numpy", "onnxruntime", "av", "PIL"}),
        ("taidpt.runtime", {"torch", "onnxruntime", "av", "PIL", "onnx"}),
        ("taidpt.runtime.tagger.tagger", {"torch", "av", "PIL", "onnx"}),
        ("taidpt.cli", {"torch", "numpy", "onnxruntime", "av", "PIL"}),
    ],
)
def test_what_an_import_may_load(module: str, forbidden: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({forbidden!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

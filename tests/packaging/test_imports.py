"""Imports run one way: between rooms, between the folders of a room, and without a circle.

Every import counts, also those inside functions and those for type checkers alone.
"""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from taidpt.cli import COMMANDS
from tests.support import REPOSITORY

# What each room may import of ours.
ALLOWED = {
    "runtime": {"runtime"},
    "kernels": {"kernels"},
    "taidpt": {"taidpt", "kernels", "runtime"},
    "export": {"export", "taidpt", "kernels", "runtime"},
}
# Where the folders and modules of a room stand: a line imports what stands above it, and itself.
ORDER = {
    "runtime": """
        errors closing loopback printable redact stages
        optional
        lazy
        storage measuring events
        sources pages
        bank
        bundle
        preprocess top_k
        backends results
        options
        stream
        painting adapting triton_client
        tagger sinks
        bench tag adapt triton_server
        archive
        sites sidecars
        serve
        commands
    """,
    "kernels": """
        local_similarity
        aot_compile
        aot_header
        aot
    """,
    "taidpt": """
        progress watchdog metrics score_transforms texts toyworld
        score_file label_file scores clip archive
        datasets encoders bench
        prompts
        features
        calibration/statistics
        judging text_thresholds transform_choice confusable
        calibration
        tuning
        evaluation
        commands cli
        __main__
    """,
    "export": """
        graph
        parity classes
        precision exporter
        engines replace_head demo deepstream
        checks
        call cli
    """,
}
# The largest number of modules in one folder, its `__init__.py` not counted.
LARGEST = {"kernels/local_similarity": 18}
LARGEST_ELSEWHERE = 13
# The one thing that the ground floor may ask of the package above it.
VERSION_IMPORT = "from taidpt import __version__"
# What stands at the top of a command module, so that --help is quick.
COMMAND_TOP_LEVEL = {"click", "taidpt", "__future__"} | set(sys.stdlib_module_names)


@cache
def modules() -> dict[str, Path]:
    """Every module of the product by its import name, packages by their folder's name."""
    found = {}
    for room in ALLOWED:
        for source in sorted((REPOSITORY / room).rglob("*.py")):
            parts = source.relative_to(REPOSITORY).with_suffix("").parts
            if room != "taidpt":
                parts = ("taidpt", *parts)
            elif parts[1] in ALLOWED:  # behind a link
                continue
            found[".".join(parts).removesuffix(".__init__")] = source
    return found


@cache
def imports(name: str) -> tuple[tuple[int, str], ...]:
    """Line and module of each import of ours in a module, wherever in the file it stands."""
    return tuple(_imports(modules()[name]))


def _imports(source: Path) -> Iterator[tuple[int, str]]:
    text = source.read_text("utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        if text.splitlines()[node.lineno - 1].strip() == VERSION_IMPORT:
            continue
        for name in names:
            if name.split(".")[0] == "taidpt":
                module = name if name in modules() else name.rpartition(".")[0]
                assert module in modules(), f"{source}:{node.lineno}: there is no {name}"
                yield node.lineno, module


def room_of(module: str) -> str:
    """The room of a module."""
    second = module.split(".")[1:2]
    return second[0] if second and second[0] in ALLOWED else "taidpt"


def level_of(module: str) -> tuple[int, str] | None:
    """The line of its room's order in which a module stands, and its place there.

    None for the room's own `__init__`, which hands names on from everywhere.
    """
    room = room_of(module)
    inside = module.split(".")[1 if room == "taidpt" else 2 :]
    if not inside:
        return None
    lines = [line.split() for line in ORDER[room].split("\n")]
    for length in (2, 1):  # the longest place that the order names
        place = "/".join(inside[:length])
        for number, places in enumerate(lines):
            if place in places:
                return number, place
    raise AssertionError(f"{module} has no place in the order of {room}")


def test_rooms_import_downwards() -> None:
    wrong = [
        f"{modules()[name]}:{line} imports {other}"
        for name in modules()
        for line, other in imports(name)
        if room_of(other) not in ALLOWED[room_of(name)] and name != "taidpt"  # hands all on
    ]
    assert not wrong, "\n".join(wrong)


def test_folders_import_what_stands_before_them() -> None:
    wrong = []
    for name in modules():
        level = level_of(name)
        for line, other in imports(name):
            below = level_of(other) if room_of(other) == room_of(name) else None
            if level is None or below is None or level[1] == below[1]:
                continue
            if below[0] >= level[0]:
                wrong.append(f"{modules()[name]}:{line} ({level[1]}) imports {other}")
    assert not wrong, "\n".join(wrong)


def test_there_is_no_import_circle() -> None:
    """A package's `__init__` that hands names on when they are used is no part of a circle."""
    graph = {
        name: {other for _, other in imports(name)} - {name}
        for name, source in modules().items()
        if source.name != "__init__.py" or "lazy_names" not in source.read_text("utf-8")
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_folders_are_small_and_say_their_purpose() -> None:
    for name, source in modules().items():
        if source.name != "__init__.py" or name == "taidpt":
            continue
        folder = source.parent.relative_to(REPOSITORY).as_posix()
        count = len(list(source.parent.glob("*.py"))) - 1
        assert count <= LARGEST.get(folder, LARGEST_ELSEWHERE), f"{folder} has {count} modules"
        purpose = ast.get_docstring(ast.parse(source.read_text("utf-8"))) or ""
        assert purpose, f"{folder}/__init__.py does not say what the folder is for"
        assert purpose.splitlines()[0].endswith("."), f"{folder}: one line, a whole sentence"


def test_command_modules_are_light_and_imported_by_nobody() -> None:
    doors = {entry.path.partition(":")[0] for entry in COMMANDS.values()}
    assert doors <= set(modules())
    for name in modules():
        for line, other in imports(name):
            assert other not in doors, f"{modules()[name]}:{line} imports the door {other}"
    for door in doors:
        for node in ast.parse(modules()[door].read_text("utf-8")).body:
            if isinstance(node, ast.Import):
                tops = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                tops = {(node.module or "").split(".")[0]}
            else:
                continue
            assert tops <= COMMAND_TOP_LEVEL, f"{modules()[door]}:{node.lineno} imports {tops}"


def test_every_lazy_name_exists_and_is_what_type_checkers_see() -> None:
    """The table of `lazy_names` and the imports under TYPE_CHECKING name the same things."""
    for name, source in modules().items():
        if source.name != "__init__.py" or "lazy_names(" not in source.read_text("utf-8"):
            continue
        package = importlib.import_module(name)
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module != "taidpt.runtime.lazy":
                for alias in node.names if node.module.startswith("taidpt") else ():
                    assert getattr(package, alias.name).__name__ == alias.name
                    assert alias.name in dir(package)


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

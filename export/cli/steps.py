"""The steps of `taidpt-export`. Only the export of prompts loads PyTorch."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taidpt.progress import Progress
from taidpt.runtime.bundle.view import ViewRequest
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import require_extra

if TYPE_CHECKING:
    from taidpt.export.graph.resize import FrameInput
    from taidpt.export.precision.request import EngineRequest

__all__ = [
    "ENGINE_OPTIONS",
    "check_cpu_options",
    "cpu_step",
    "engine_step",
    "export_step",
    "head_step",
    "jetpack5_step",
    "parse_batch",
    "parse_frame",
    "parse_size",
    "read_options",
]

ENGINE_OPTIONS = (
    "engine",
    "batches",
    "workspace",
    "frames",
    "flavour",
    "target",
    "dla",
    "version_compatible",
    "hardware_compatible",
    "truth",
    "max_map_drop",
)
_OF_BUILDERS = (
    "batches",
    "workspace",
    "target",
    "dla",
    "version_compatible",
    "hardware_compatible",
)
_OF_PROMPTS = (
    "score_transform",
    "merge_weight",
    "temperature",
    "background",
    "opset",
    "view",
    "local_branch",
    "frame_size",
    "images",
    "pretrained",
    "parity_bound",
)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def read_options(
    source: Path,
    output: Path | None,
    options: dict[str, Any],
    given: Collection[str] = (),
) -> tuple[EngineRequest | None, dict[str, Any]]:
    """Split the options into the engine's and the export's, and check both before any work.

    Args:
        source: prompts, a bank or a bundle.
        output: of -o.
        options: every option by name.
        given: names of those on the command line; each of them must have an effect.
    Raises:
        InputError: options do not fit the source, or each other.
    """
    engine = {name: options[name] for name in ENGINE_OPTIONS}
    settings = {
        name: value for name, value in options.items() if name not in (*ENGINE_OPTIONS, "jetpack5")
    }
    _check_engine_options(engine, given)
    for_cpu = engine["engine"] is not None and engine["flavour"] == "cpu"
    if for_cpu:
        check_cpu_options(source, output)
    if source.is_dir():
        _check_bundle_options(source, output, _without_gate_images(given, engine), for_cpu)
    ViewRequest.parse(options["view"])
    settings["bank"] = "input" if settings.pop("swappable_bank") else "constant"
    colours = {name: settings.pop(f"frame_{name}") for name in ("format", "matrix", "range")}
    settings["frame"] = _frame_input(settings.pop("frame_size"), colours)
    shared = {name: settings[name] for name in ("force", "images")}
    return _engine_request({**engine, **shared}), settings


def check_cpu_options(source: Path, output: Path | None) -> None:
    """int8 for the CPU needs an fp32 bundle and the name of a new one."""
    if not source.is_dir():
        raise InputError(f"--flavour cpu needs a bundle: run taidpt-export {source} first")
    if output is None:
        raise InputError("--flavour cpu writes another bundle: give -o NAME.taidpt")
    if output.resolve() == source.resolve():
        raise InputError(f"{output} is the fp32 bundle itself: give another name with -o")


def _check_engine_options(engine: dict[str, Any], given: Collection[str]) -> None:
    """Options of an engine need --engine."""
    if engine["engine"] is None:
        unused = [name for name in ENGINE_OPTIONS if name in given]
        if unused and not (unused == ["batches"] and "jetpack5" in given):
            raise InputError(f"{_option(unused[0])} needs --engine too, such as --engine int8")
    elif engine["flavour"] == "cpu":
        unused = [name for name in _OF_BUILDERS if name in given]
        if unused:
            raise InputError(f"{_option(unused[0])} is for engines, and --flavour cpu builds none")


def _check_bundle_options(
    source: Path, output: Path | None, given: Collection[str], for_cpu: bool
) -> None:
    """A bundle gets an engine, or is made again with another head; nothing else."""
    another_head = [name for name in ("swappable_bank", "top_k") if name in given]
    if for_cpu and another_head:
        raise InputError(f"{_option(another_head[0])} and --flavour cpu: use one after the other")
    if output is not None and not another_head and not for_cpu:
        raise InputError(
            f"{source} is a bundle already: an engine goes into it, so leave out -o {output}; "
            "-o is for another bundle of it, with --swappable-bank or --top-k K"
        )
    if output is None and (another_head or not {"engine", "jetpack5"} & set(given)):
        raise InputError(
            f"{source} is a bundle already: --engine fp16 adds an engine to it, and "
            "--swappable-bank or --top-k K with -o NAME.taidpt make another bundle of it"
        )
    unused = [name for name in _OF_PROMPTS if name in given]
    if unused:
        raise InputError(
            f"{_option(unused[0])} is for the export of prompts, and {source} is a bundle"
        )


def _without_gate_images(given: Collection[str], engine: dict[str, Any]) -> set[str]:
    """The given options, without --images where it is for a precision's gate."""
    gated = engine["engine"] not in (None, "fp32") or "truth" in given
    return set(given) - ({"images"} if gated else set())


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _frame_input(size: str | None, colours: dict[str, str | None]) -> FrameInput | None:
    given = {name: value for name, value in colours.items() if value is not None}
    if size is None:
        if given:
            raise InputError(
                f"--frame-{min(given)} needs the camera's size: --frame-size 1920x1080"
            )
        return None
    if colours["format"] != "nv12" and len(given) > ("format" in given):
        raise InputError("--frame-matrix and --frame-range are for --frame-format nv12")
    from taidpt.export.graph.resize import FrameInput

    height, width = parse_frame(size)
    return FrameInput(height, width, **given)


def _engine_request(engine: dict[str, Any]) -> EngineRequest | None:
    if engine["engine"] is None:
        return None
    from taidpt.export.precision.request import EngineOptions, EngineRequest

    options = EngineOptions(
        precision=engine["engine"],
        batch=parse_batch(engine["batches"]),
        workspace=parse_size(engine["workspace"]) if engine["workspace"] else None,
        flavour=engine["flavour"],
        target=engine["target"],
        dla=engine["dla"],
        version_compatible=engine["version_compatible"],
        hardware_compatible=engine["hardware_compatible"],
    )
    return EngineRequest(
        options,
        calibrate=engine["frames"],
        force=bool(engine["force"]),
        labels=engine["truth"],
        images=engine["images"],
        max_map_drop=engine["max_map_drop"],
    )


def parse_batch(text: str) -> tuple[int, int, int]:
    """ "1,4,16" → (1, 4, 16); "4" → (4, 4, 4)."""
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts) or len(parts) not in (1, 3):
        raise InputError(f"batch {text!r}: expected least,usual,largest such as 1,4,16")
    numbers = [int(part) for part in parts] * (3 if len(parts) == 1 else 1)
    return numbers[0], numbers[1], numbers[2]


def parse_frame(text: str) -> tuple[int, int]:
    """ "1920x1080" → (1080, 1920), height first."""
    match = re.fullmatch(r"(\d+)\s*[xX×]\s*(\d+)", text.strip())
    if match is None or 0 in (int(match[1]), int(match[2])):
        raise InputError(f"frame {text!r}: expected a size such as 1920x1080")
    return int(match[2]), int(match[1])


def parse_size(text: str) -> int:
    """ "2G" → bytes."""
    match = re.fullmatch(r"(\d+)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or int(match[1]) == 0:
        raise InputError(f"workspace {text!r}: expected a size such as 512M or 2G")
    return int(match[1]) * _UNITS[match[2].upper()]


def export_step(source: Path, output: Path, settings: dict[str, Any], progress: Progress) -> None:
    """Prompts → bundle; prints the result."""
    require_extra("export", "exporting")
    from taidpt.export.cli.printing import print_result
    from taidpt.export.exporter import ExportOptions, export_bundle

    print_result(export_bundle(source, output, ExportOptions(**settings), progress))


def head_step(source: Path, output: Path, settings: dict[str, Any], progress: Progress) -> None:
    """Bundle → bundle with another head; prints the result."""
    from taidpt.export.cli.printing import print_result
    from taidpt.export.replace_head import replace_head

    how = settings["bank"], settings["top_k"], progress, settings["force"]
    print_result(replace_head(source, output, *how))


def engine_step(bundle: Path, request: EngineRequest, progress: Progress) -> None:
    """Bundle → engine in it; prints the result."""
    from taidpt.export.cli.printing import variant_lines
    from taidpt.export.engines.in_bundle import engine_of
    from taidpt.export.precision.variant import add_precision

    variant = add_precision(bundle, request, progress)
    for line in variant_lines(variant, request):
        click.echo(line)
    result = engine_of(variant, request, progress)
    size = result.path.stat().st_size / 1e6
    state = "built" if result.fresh else "is current, nothing to do"
    click.echo(f"{result.path}: {size:.1f} MB, {state}")
    key = result.key
    click.echo(
        f"  {key['flavour']} {key['version']}, {key['architecture']}, {key['precision']}, "
        f"batch {','.join(map(str, key['batch']))}"
    )
    if not result.verified:
        click.echo(f"  the engine is unverified: {result.reason}")


def cpu_step(source: Path, output: Path, request: EngineRequest, progress: Progress) -> None:
    """Bundle → bundle in int8 for the CPU; prints the result."""
    from taidpt.export.cli.printing import folder_size, precision_lines
    from taidpt.export.precision.cpu_bundle import write_cpu_bundle

    report = write_cpu_bundle(source, output, request, progress)
    click.echo(f"{output}: int8 for ONNX Runtime on the CPU, {folder_size(output) / 1e6:.1f} MB")
    for line in precision_lines(report.to_json(), request):
        click.echo(line)


def jetpack5_step(path: Path, batch: str, force: bool) -> None:
    """Add the graph for TensorRT 8.5 to a bundle, and print the command for the device."""
    from taidpt.export.engines.jetpack5 import JETPACK5_FILE, add_jetpack5_graph, trtexec_line
    from taidpt.export.graph.from_bundle import require_onnx

    require_onnx()
    sizes = parse_batch(batch)
    graph = add_jetpack5_graph(path, force)
    click.echo(
        f"{path / JETPACK5_FILE}: for TensorRT 8.5 (experimental); on the device, in the bundle's "
        "folder, run:"
    )
    click.echo(f"  {trtexec_line(JETPACK5_FILE, graph, sizes)}")

"""The command line of exporting: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

__all__ = ["demo", "doctor", "export", "verify"]


_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("source", type=_PATH, metavar="PROMPTS|BUNDLE")
@click.option(
    "-o",
    "--output",
    type=_PATH,
    help="The bundle to write, NAME.taidpt. [default: PROMPTS with the ending .taidpt]",
)
@click.option(
    "--engine",
    type=click.Choice(["fp32", "fp16", "bf16", "int8", "fp8"]),
    help="Add an engine of this precision. Needs TensorRT, not PyTorch. [default: no engine]",
)
@click.option(
    "--batch",
    default="1,1,8",
    show_default=True,
    help="Engine: least,usual,largest number of frames in a batch.",
)
@click.option(
    "--workspace",
    metavar="SIZE",
    help="Engine: scratch memory, such as 2G. [default: half of the free memory, at most 4G]",
)
@click.option(
    "--calibrate",
    type=_PATH,
    metavar="PATH",
    help="Pictures or a video like those to be tagged, which int8 and fp8 need.",
)
@click.option(
    "--max-map-drop",
    type=float,
    metavar="POINTS",
    help="Points of mAP that int8 and fp8 may lose, with --labels; the layers that lose most stay "
    "in fp32. [default: no bound]",
)
@click.option(
    "--labels",
    type=_PATH,
    metavar="FILE",
    help='Tags of the pictures of --images, for --max-map-drop: {"a.jpg": ["dog"]}.',
)
@click.option(
    "--flavour",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx", "cpu"]),
    default="auto",
    show_default=True,
    help="Engine: the builder; cpu writes another bundle (-o) with an int8 graph for CPUs.",
)
@click.option(
    "--target",
    metavar="SM",
    help="Engine: GPU architecture such as sm_86, TensorRT-RTX only. [default: this machine's]",
)
@click.option(
    "--dla",
    type=int,
    metavar="CORE",
    help="Engine: deep learning accelerator core of a Jetson. Experimental. [default: none]",
)
@click.option(
    "--version-compatible",
    is_flag=True,
    help="Engine: also runs on later versions of TensorRT. Experimental.",
)
@click.option(
    "--hardware-compatible", is_flag=True, help="Engine: also runs on other GPUs. Experimental."
)
@click.option(
    "--jetpack5",
    is_flag=True,
    help="Add a graph for TensorRT 8.5 and print its trtexec command. Experimental.",
)
@click.option(
    "--score-transform",
    type=click.Choice(["none", "center", "log_softmax"]),
    help="Transform of a picture's scores over its tags. [default: that of PROMPTS]",
)
@click.option(
    "--merge-weight",
    type=float,
    help="Share of the local score in the merged score, 0 to 1. [default: that of PROMPTS]",
)
@click.option(
    "--temperature",
    type=float,
    help="Sharpness of the local weights over patches, above 0. [default: that of PROMPTS]",
)
@click.option("--opset", type=int, default=18, show_default=True, help="ONNX opset, 17 to 20.")
@click.option(
    "--bank",
    type=click.Choice(["constant", "input"]),
    default="constant",
    show_default=True,
    help="Class embeddings: a constant of the graph, or an input of it.",
)
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    metavar="K",
    help="Return only each frame's K best scores, for thousands of tags. [default: all]",
)
@click.option(
    "--frame",
    metavar="WxH",
    help="Frame size of the camera, in pixels; puts resize and crop into the graph. [default: both "
    "outside]",
)
@click.option(
    "--frame-format",
    type=click.Choice(["rgb", "nv12"]),
    help="With --frame: pixel format; a Jetson's decoder gives NV12. [default: rgb]",
)
@click.option(
    "--frame-matrix",
    type=click.Choice(["bt601", "bt709"]),
    help="NV12: colour matrix; HD video has BT.709, older video BT.601. [default: bt709]",
)
@click.option(
    "--frame-range",
    type=click.Choice(["limited", "full"]),
    help="NV12: range of luma, 16 to 235 (limited, as in video) or 0 to 255. [default: limited]",
)
@click.option(
    "--images",
    type=_PATH,
    metavar="DIR",
    help="Your own pictures for the parity check and --engine's gate. [default: built-in ones]",
)
@click.option(
    "--pretrained",
    metavar="FILE|DIR",
    help="File of the weights, or the model's folder. [default: the one that PROMPTS name]",
)
@click.option(
    "--parity-bound",
    type=float,
    default=0.9999,
    show_default=True,
    help="Least centred cosine with PyTorch on equal pixels, 0.999 to 1.",
)
@click.option("--force", is_flag=True, help="Write the bundle even when a check fails.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.help_option("-h", "--help")
@click.pass_context
def export(
    context: click.Context, /, source: Path, output: Path | None, quiet: bool, **options: Any
) -> None:
    """Turn tuned PROMPTS into a bundle that runs without PyTorch, or add an engine to a BUNDLE.

    PROMPTS may be a class bank too. With -o, a BUNDLE is made again with --bank input or --top-k.

    The result is compared with PyTorch on reference pictures. A bundle that disagrees is not
    written (exit code 1). If an engine cannot be built here, the exit code is 3, and everything
    portable is written. Experimental options have never run on the device they are for.
    """
    from taidpt.export.cli.printing import progress_for
    from taidpt.export.cli.steps import (
        cpu_step,
        engine_step,
        export_step,
        head_step,
        jetpack5_step,
        read_options,
    )
    from taidpt.export.graph.onnx_files import one_line_on_disk

    from_line = click.core.ParameterSource.COMMANDLINE
    given = {name for name in options if context.get_parameter_source(name) == from_line}
    request, settings = read_options(source, output, options, given)
    bundle = output or (source if source.is_dir() else source.with_suffix(".taidpt"))
    with progress_for(quiet) as progress, one_line_on_disk(bundle):
        if request is not None and request.options.flavour == "cpu":
            cpu_step(source, bundle, request, progress)
            return
        if not source.is_dir():
            export_step(source, bundle, settings, progress)
        elif output is not None:
            head_step(source, output, settings, progress)
        if options["jetpack5"]:
            jetpack5_step(bundle, options["batch"], options["force"])
        if request is not None:
            engine_step(bundle, request, progress)


@click.command()
@click.option(
    "-o",
    "--output",
    type=_PATH,
    default=Path("taidpt-demo"),
    show_default=True,
    help="Folder for the prompts, the bundle, the tags and the page.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of every random number generator in tuning.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.help_option("-h", "--help")
def demo(output: Path, seed: int, quiet: bool) -> None:
    """Run every step on the embedded toy world: tune, export, tag a video, evaluate."""
    from taidpt.runtime.optional import require_extra

    require_extra("demo", "taidpt demo")
    import dataclasses

    from taidpt.export.cli.printing import print_demo, progress_for
    from taidpt.export.demo.run import DEMO_SETTINGS, run_demo

    with progress_for(quiet) as progress:
        result = run_demo(output, progress, dataclasses.replace(DEMO_SETTINGS, seed=seed))
    print_demo(result)


@click.command()
@click.argument("bundle", type=_PATH)
@click.option(
    "--images",
    type=_PATH,
    metavar="DIR",
    help="Pictures to compare on. [default: those stored in the bundle]",
)
@click.option(
    "--labels",
    type=_PATH,
    metavar="FILE",
    help='Tags of the pictures of --images, to measure mAP: {"a.jpg": ["dog"]}.',
)
@click.option(
    "--torch",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    show_default=True,
    help="Compare with PyTorch (yes), with its outputs stored in the bundle (no), or with PyTorch "
    "where it is installed (auto).",
)
@click.option(
    "--trust-engine", is_flag=True, help="Also run engines that this machine did not build."
)
@click.option("--json", "json_path", type=_PATH, metavar="FILE", help="Write the report as JSON.")
@click.help_option("-h", "--help")
def verify(bundle: Path, json_path: Path | None, **options: Any) -> None:
    """Check a BUNDLE's files, and compare every graph and engine that runs here with PyTorch.

    The exit code is 1 if anything is out of bounds. PyTorch is not needed.
    """
    from taidpt.export.checks.verify import VerifyOptions, verify as run_verify
    from taidpt.export.cli.printing import print_verify

    report = run_verify(bundle, VerifyOptions(**options))
    print_verify(report, json_path)
    report.require()


@click.command()
@click.argument("bundle", type=_PATH, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.help_option("-h", "--help")
def doctor(bundle: Path | None, as_json: bool) -> None:
    """Show what is installed on this machine, and whether a BUNDLE's engines are current.

    The exit code is 1 if the bundle or one of its engines is damaged or stale.
    """
    from taidpt.export.checks.doctor import examine, examine_bundle
    from taidpt.export.cli.printing import print_findings

    found = examine_bundle(bundle) if bundle else []
    print_findings([*examine(), *found], as_json)
    if any(finding.good is False for finding in found):
        raise click.exceptions.Exit(1)

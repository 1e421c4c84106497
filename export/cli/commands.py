"""The command line of exporting: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

__all__ = ["demo", "doctor", "export", "verify"]


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="PROMPTS|BUNDLE")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The bundle to write, NAME.taidpt; the default is the prompts' name beside them.",
)
@click.option(
    "--engine",
    type=click.Choice(["fp32", "fp16", "bf16", "int8", "fp8"]),
    help="Add an engine of this precision; on a machine with TensorRT, and no PyTorch needed.",
)
@click.option("--batch", default="1,1,8", show_default=True, help="Engine: least,usual,largest.")
@click.option("--workspace", metavar="SIZE", help="Engine: scratch memory, such as 2G.")
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Pictures or a video like those it will see, for int8 and fp8.",
)
@click.option(
    "--max-map-drop",
    type=float,
    metavar="POINTS",
    help="Points of mAP that a precision may lose, with --labels; layers stay in fp32 until then.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='What the pictures of --images show, {"a.jpg": ["dog"]}, for --max-map-drop.',
)
@click.option(
    "--flavour",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx", "cpu"]),
    default="auto",
    show_default=True,
    help="Engine: which builder; cpu makes another bundle (-o) with an int8 graph.",
)
@click.option("--target", metavar="SM", help="Engine: sm_86 and the like (TensorRT-RTX only).")
@click.option("--dla", type=int, metavar="CORE", help="Engine: on a deep learning accelerator.")
@click.option("--version-compatible", is_flag=True, help="Engine: runs on later TensorRTs.")
@click.option("--hardware-compatible", is_flag=True, help="Engine: runs on other GPUs.")
@click.option(
    "--jetpack5",
    is_flag=True,
    help="Add a plain graph for TensorRT 8.5 and print its trtexec line.",
)
@click.option(
    "--score-transform",
    type=click.Choice(["none", "center", "log_softmax"]),
    help="What is done to a picture's scores over its tags.",
)
@click.option("--merge-weight", type=float, help="Share of the local score, 0 to 1.")
@click.option("--temperature", type=float, help="Sharpness of the local weights over patches.")
@click.option("--opset", type=int, default=18, show_default=True, help="ONNX opset, 17 to 20.")
@click.option(
    "--bank",
    type=click.Choice(["constant", "input"]),
    default="constant",
    show_default=True,
    help="Whether the class embeddings are stored in the graph or fed to it.",
)
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    metavar="K",
    help="Return each frame's K best scores in place of all: for thousands of tags.",
)
@click.option(
    "--frame", metavar="WxH", help="The camera's frame size: resize and crop go into the graph."
)
@click.option(
    "--frame-format",
    type=click.Choice(["rgb", "nv12"]),
    help="With --frame: what the frames are; NV12 is what a Jetson's decoder gives.  [rgb]",
)
@click.option(
    "--frame-matrix",
    type=click.Choice(["bt601", "bt709"]),
    help="Of NV12: its colours; BT.709 is HD video, BT.601 older.  [bt709]",
)
@click.option(
    "--frame-range",
    type=click.Choice(["limited", "full"]),
    help="Of NV12: whether luma uses 16 to 235, as video does, or all bytes.  [limited]",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Your own pictures for the parity check and --engine's gate, beside the built-in ones.",
)
@click.option("--pretrained", metavar="FILE", help="The weights, where they lie elsewhere now.")
@click.option(
    "--parity-bound",
    type=float,
    default=0.999,
    show_default=True,
    help="Least centred cosine with PyTorch.",
)
@click.option("--force", is_flag=True, help="Write the bundle even when a check fails.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.help_option("-h", "--help")
@click.pass_context
def export(
    context: click.Context, /, source: Path, output: Path | None, quiet: bool, **options: Any
) -> None:
    """Turn tuned PROMPTS into a bundle that runs without PyTorch, or give a BUNDLE an engine.

    PROMPTS may be a class bank too. With -o, a BUNDLE is made again with --bank input or --top-k.

    The result is compared with PyTorch on reference pictures; a bundle that disagrees is not
    written (exit code 1). An engine that cannot be built here ends with exit code 3, after
    everything portable was written.
    """
    from taidpt.export.cli.printing import progress_for
    from taidpt.export.cli.steps import (
        cpu_step,
        engine_step,
        export_step,
        jetpack5_step,
        read_options,
        rehead_step,
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
            rehead_step(source, output, settings, progress)
        if options["jetpack5"]:
            jetpack5_step(bundle, options["batch"], options["force"])
        if request is not None:
            engine_step(bundle, request, progress)


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("taidpt-demo"),
    show_default=True,
    help="Folder for the prompts, the bundle, the tags and the page.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the tuning.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.help_option("-h", "--help")
def demo(output: Path, seed: int, quiet: bool) -> None:
    """Do the whole line on the embedded toy world: tune, export, tag a video, evaluate."""
    from taidpt.runtime.optional import require_extra

    require_extra("demo", "taidpt demo")
    import dataclasses

    from taidpt.export.cli.printing import print_demo, progress_for
    from taidpt.export.demo.run import DEMO_SETTINGS, run_demo

    with progress_for(quiet) as progress:
        result = run_demo(output, progress, dataclasses.replace(DEMO_SETTINGS, seed=seed))
    print_demo(result)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Real pictures to compare on, beside none: the ones stored in the bundle.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='What the pictures show, {"a.jpg": ["dog"]}, for the change of mAP.',
)
@click.option(
    "--torch",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    show_default=True,
    help="Whether PyTorch is the truth, or the answers stored in the bundle.",
)
@click.option(
    "--trust-engine", is_flag=True, help="Run engines that this machine has no record of."
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the report.")
@click.help_option("-h", "--help")
def verify(bundle: Path, json_path: Path | None, **options: Any) -> None:
    """Check a BUNDLE's files, and that all that can run here gives PyTorch's tags.

    Ends with 1 when anything is past its bounds. Needs no PyTorch.
    """
    from taidpt.export.checks.verify import VerifyOptions
    from taidpt.export.checks.verify import verify as run_verify
    from taidpt.export.cli.printing import print_verify

    report = run_verify(bundle, VerifyOptions(**options))
    print_verify(report, json_path)
    report.require()


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.help_option("-h", "--help")
def doctor(bundle: Path | None, as_json: bool) -> None:
    """Show what this machine has and lacks, and whether a BUNDLE's engines are fresh.

    The exit code is 1 where the bundle or one of its engines is at fault.
    """
    from taidpt.export.checks.doctor import examine, examine_bundle
    from taidpt.export.cli.printing import print_findings

    found = examine_bundle(bundle) if bundle else []
    print_findings([*examine(), *found], as_json)
    if any(finding.good is False for finding in found):
        raise click.exceptions.Exit(1)

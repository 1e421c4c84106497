"""The command line of exporting: parse, call the library, print."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from taidpt.runtime.options import AT_LEAST_ONE, PATH, path_option

__all__ = ["demo", "doctor", "export", "export_deepstream", "report", "verify"]

_JSON = path_option("--json", to="json_path")


@click.command()
@click.argument("source", type=PATH, metavar="PROMPTS|BUNDLE")
@path_option("--output", "The bundle, NAME.taidpt.", show_default="PROMPTS with the ending .taidpt")
@click.option(
    "--engine",
    type=click.Choice(["fp32", "fp16", "bf16", "int8", "fp8"]),
    show_default="no engine",
    help="Add an engine of this precision. Needs TensorRT, not PyTorch.",
)
@path_option("--batches", "Engine: the least, the usual and the largest.", default="1,1,8")
@click.option(
    "--workspace",
    metavar="SIZE",
    show_default="half of the free memory, at most 4G",
    help="Engine: scratch memory, such as 2G.",
)
@path_option("--frames", "int8 and fp8 need them.")
@click.option(
    "--max-map-drop",
    type=float,
    metavar="POINTS",
    show_default="no bound",
    help="Points of mAP that int8 and fp8 may lose, with --truth; the layers that lose most stay "
    "in fp32.",
)
@path_option("--truth", "For --max-map-drop.")
@click.option(
    "--flavour",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx", "cpu"]),
    default="auto",
    help="Engine: the builder; cpu writes another bundle (-o) with an int8 graph for CPUs.",
)
@click.option(
    "--target",
    metavar="SM",
    show_default="this machine's",
    help="Engine: GPU architecture such as sm_86, TensorRT-RTX only.",
)
@click.option(
    "--dla",
    type=int,
    metavar="CORE",
    show_default="none",
    help="Engine: deep learning accelerator core of a Jetson. Experimental.",
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
@path_option(
    "--score-transform",
    type=click.Choice(["none", "center", "log_softmax"]),
    show_default="that of PROMPTS",
)
@path_option("--merge-weight", show_default="that of PROMPTS")
@click.option(
    "--temperature",
    type=float,
    show_default="that of PROMPTS",
    help="Sharpness of the local weights over patches, above 0.",
)
@click.option(
    "--background",
    is_flag=True,
    help="Let common nouns compete with the tags. In --score-transform center; they have no score.",
)
@click.option("--opset", type=int, default=18, help="ONNX opset, 17 to 20.")
@click.option(
    "--swappable-bank/--constant-bank",
    default=False,
    help="Make the class bank an input of the graph, so that `tag --bank` can replace it.",
)
@click.option(
    "--top-k",
    type=AT_LEAST_ONE,
    metavar="K",
    show_default="all",
    help="Return only each frame's K best scores, for thousands of tags.",
)
@click.option(
    "--view",
    metavar="VIEW",
    default="auto",
    help="Part of a frame that the model sees. crop (the centre), whole (squeezed into a square), "
    "wide (a rectangle of 16:9 or of --frame-size; wide:4x3), tiles:N (N squares), or auto: wide "
    "for convolutional towers, else crop.",
)
@path_option("--local-branch", show_default="that of PROMPTS, else value")
@path_option("--frame-size", show_default="both outside")
@click.option(
    "--frame-format",
    type=click.Choice(["rgb", "nv12"]),
    show_default="rgb",
    help="With --frame-size: pixel format; a Jetson's decoder gives NV12.",
)
@click.option(
    "--frame-matrix",
    type=click.Choice(["bt601", "bt709"]),
    show_default="bt709",
    help="NV12: colour matrix; HD video has BT.709, older video BT.601.",
)
@click.option(
    "--frame-range",
    type=click.Choice(["limited", "full"]),
    show_default="limited",
    help="NV12: range of luma, 16 to 235 (limited, as in video) or 0 to 255.",
)
@path_option("--images", "For the parity check and --engine's gate.", show_default="built-in ones")
@path_option(
    "--pretrained", "A file, or the model's folder.", show_default="those that PROMPTS name"
)
@click.option(
    "--parity-bound",
    type=float,
    default=0.9999,
    help="Least centred cosine with PyTorch on equal pixels, 0.999 to 1.",
)
@click.option("--force", is_flag=True, help="Write the bundle even when a check fails.")
@path_option("--quiet")
@click.pass_context
def export(
    context: click.Context, /, source: Path, output: Path | None, quiet: bool, **options: Any
) -> None:
    """Turn tuned PROMPTS into a bundle, or add an engine to a BUNDLE.

    A bundle runs without PyTorch. PROMPTS may be a class bank too. With -o, a BUNDLE is made again
    with --swappable-bank or --top-k.

    The result is compared with PyTorch on reference pictures. A bundle that disagrees is not
    written (exit code 1). If an engine cannot be built here, the exit code is 3, and everything
    portable is written. Experimental options have never run on the device they are for.
    """
    from taidpt.export.cli.steps import (
        cpu_step,
        engine_step,
        export_step,
        head_step,
        jetpack5_step,
        read_options,
    )
    from taidpt.export.graph.onnx_files import one_line_on_disk
    from taidpt.progress import open_progress

    from_line = click.core.ParameterSource.COMMANDLINE
    given = {name for name in options if context.get_parameter_source(name) == from_line}
    request, settings = read_options(source, output, options, given)
    bundle = output or (source if source.is_dir() else source.with_suffix(".taidpt"))
    with open_progress(not quiet) as progress, one_line_on_disk(bundle):
        if request is not None and request.options.flavour == "cpu":
            cpu_step(source, bundle, request, progress)
            return
        if not source.is_dir():
            export_step(source, bundle, settings, progress)
        elif output is not None:
            head_step(source, output, settings, progress)
        if options["jetpack5"]:
            jetpack5_step(bundle, options["batches"], options["force"])
        if request is not None:
            engine_step(bundle, request, progress)


@click.command()
@click.argument("bundle", type=PATH)
@path_option("--output", "A new folder.", required=True)
@path_option(
    "--frame-size", "That of nvstreammux. A bundle that has its own keeps it.", default="1920x1080"
)
@path_option("--batch", "As nvstreammux's batch-size.", default=1)
@click.option("--tensor-meta", is_flag=True, help="Attach scores and features to each frame, too.")
def export_deepstream(
    bundle: Path, output: Path, frame_size: str, batch: int, tensor_meta: bool
) -> None:
    """Write a folder for DeepStream's nvinfer.

    It holds a graph, nvinfer's configuration, and a parser to be built on the device, which
    attaches every tag above its own threshold. Experimental: it has never run in DeepStream.
    """
    from taidpt.export.cli.steps import parse_frame
    from taidpt.export.deepstream.job import DeepStreamOptions, write_deepstream

    options = DeepStreamOptions(parse_frame(frame_size), batch, tensor_meta)
    write_deepstream(bundle, output, options)


@click.command()
@path_option(
    "--output",
    "A folder for the prompts, the bundle, the tags, the video and the page.",
    default=Path("taidpt-demo"),
)
@path_option("--seed", type=int)
@path_option(
    "--pretrained",
    "Of OpenAI's RN50: openai, or a file.",
    show_default="the embedded toy world's model",
)
@path_option(
    "--frames",
    "Given 20 everyday tags; needs --pretrained.",
    to="sources",
    multiple=True,
    show_default="twelve photographs of the package",
)
@path_option("--quiet")
def demo(
    output: Path, seed: int, pretrained: str | None, sources: tuple[str, ...], quiet: bool
) -> None:
    """Run every step on the embedded toy world.

    Tunes on texts, exports, calibrates on unlabelled pictures, tags a video and evaluates. With
    --pretrained openai the same line runs on photographs, with OpenAI's RN50 and 20 everyday tags:
    on a dozen of the package, whose tags are known, or on your own with --frames SOURCE.
    """
    from taidpt.runtime.optional import require_extra

    if sources and pretrained is None:
        raise click.UsageError("--frames needs --pretrained: the toy world has a video of its own.")
    require_extra("demo", "taidpt demo")
    import dataclasses

    from taidpt.export.cli.printing import print_demo, print_photographs
    from taidpt.export.demo.run import DEMO_SETTINGS, run_demo
    from taidpt.progress import open_progress

    if pretrained is not None:
        from taidpt.export.demo.photographs import run_photographs
        from taidpt.tuning.settings import TuneSettings

        with open_progress(not quiet) as progress:
            tagged = run_photographs(output, pretrained, sources, progress, TuneSettings(seed=seed))
        print_photographs(tagged)
        return
    with open_progress(not quiet) as progress:
        result = run_demo(output, progress, dataclasses.replace(DEMO_SETTINGS, seed=seed))
    print_demo(result)


@click.command()
@click.argument("bundle", type=PATH)
@path_option("--images", show_default="those stored in the bundle")
@path_option("--truth", "Measures mAP.", to="labels")
@click.option(
    "--torch",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    help="Compare with PyTorch (yes), with its outputs stored in the bundle (no), or with PyTorch "
    "where it is installed (auto).",
)
@path_option("--trust-engine")
@_JSON
def verify(bundle: Path, json_path: Path | None, **options: Any) -> None:
    """Check that a BUNDLE still gives PyTorch's results.

    Checks its files, and every graph and engine that runs here. The exit code is 1 if anything is
    out of bounds. PyTorch is not needed.
    """
    from taidpt.export.checks.verify import VerifyOptions, verify as run_verify
    from taidpt.export.cli.printing import print_verify
    from taidpt.runtime.storage.outputs import write_json

    report = run_verify(bundle, VerifyOptions(**options))
    if str(json_path) != "-":
        print_verify(report)
    write_json(json_path, report.to_json())
    report.require()


@click.command()
@click.argument("bundle", type=PATH, required=False)
@_JSON
def doctor(bundle: Path | None, json_path: Path | None) -> None:
    """Show what this machine has and lacks.

    With a BUNDLE, also which device runs it, why faster ones do not, and whether its engines are
    current; the exit code is 1 if it or one of its engines is damaged or stale.
    """
    from taidpt.export.checks.doctor import examine, examine_bundle
    from taidpt.export.cli.printing import print_findings
    from taidpt.runtime.storage.outputs import write_json

    found = examine_bundle(bundle) if bundle else []
    everything = [*examine(), *found]
    if str(json_path) != "-":
        print_findings(everything)
    write_json(json_path, [asdict(finding) for finding in everything])
    if any(finding.good is False for finding in found):
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("bundle", type=PATH)
@path_option("--output", "A JSON file; - is standard output.", default=Path("board.json"))
@path_option("--seconds")
@path_option("--device", "auto: the fastest that works here; any other: that or fail.")
def report(bundle: Path, output: Path, seconds: float, device: str) -> None:
    """Measure BUNDLE on this board, for a table of boards.

    One JSON with the board, its power mode, versions, speed (also LoadGen's where
    mlcommons-loadgen is installed), agreement with PyTorch, watts and temperatures. It names no
    host, path or address.
    """
    from taidpt.export.checks.board_report import BATCHES, board_report
    from taidpt.runtime.storage.outputs import refuse_unwritable, write_json

    refuse_unwritable(output)
    found = board_report(bundle, BATCHES, seconds, device=device)
    write_json(output, found)
    if str(output) == "-":
        return
    row = found["bench"]["rows"][0]
    click.echo(f"{found['board']}: {row['tagger_ms']:.1f} ms a frame, {row['stream_fps']:.1f}/s")
    click.echo(f"{output} is written; docs/boards.md says how to send it")

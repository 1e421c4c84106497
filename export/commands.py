"""The command line of exporting: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

__all__ = ["demo", "export"]


@click.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="PROMPTS")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The bundle to write, NAME.taidpt; the default is the prompts' name beside them.",
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
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Your own pictures for the parity check, beside the built-in ones.",
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
def export(source: Path, output: Path | None, quiet: bool, **options: Any) -> None:
    """Turn tuned PROMPTS into a bundle that runs without PyTorch.

    The result is compared with PyTorch on reference pictures; a bundle that disagrees is not
    written (exit code 1).
    """
    from taidpt.export.graph_io import require_export_packages

    require_export_packages()
    from taidpt.export.exporter import ExportOptions, export_bundle
    from taidpt.export.printing import print_result, progress_for

    with progress_for(quiet) as progress:
        result = export_bundle(
            source, output or source.with_suffix(".taidpt"), ExportOptions(**options), progress
        )
    print_result(result)


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
    from taidpt.export.graph_io import require_export_packages

    require_export_packages()
    import dataclasses

    from taidpt.export.demo import DEMO_SETTINGS, run_demo
    from taidpt.export.printing import print_demo, progress_for

    with progress_for(quiet) as progress:
        result = run_demo(output, progress, dataclasses.replace(DEMO_SETTINGS, seed=seed))
    print_demo(result)

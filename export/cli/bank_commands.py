"""The command line of class banks: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

__all__ = ["bank", "compare_banks"]

_CHOICES = click.Choice(["prompts", "templates", "templates80", "centroids", "linear"])
_PATH = click.Path(path_type=Path)
_TEXTS = click.option(
    "--texts",
    type=_PATH,
    multiple=True,
    metavar="FILE",
    help="Captions, for centroids and linear; may be given several times.",
)
_PRETRAINED = click.option(
    "--pretrained", metavar="FILE", help="The weights, where they lie elsewhere now."
)


@click.command()
@click.argument("source", type=_PATH, metavar="PROMPTS|BUNDLE")
@click.option("-o", "--output", type=_PATH, required=True, help="The file to write.")
@click.option(
    "--tags", metavar="NAMES|FILE", help='Other tags: "forklift, hard hat", a tags.yaml or .txt.'
)
@click.option(
    "--from",
    "choice",
    type=_CHOICES,
    help="What makes the --tags: the PROMPTS' contexts (default), templates, or captions.",
)
@_TEXTS
@_PRETRAINED
@click.help_option("-h", "--help")
def bank(source: Path, output: Path, **options: Any) -> None:
    """Write the class bank of tuned PROMPTS or of a BUNDLE as one file, or one of other --tags.

    A graph or an engine whose bank is an input takes any such file, without a rebuild:
    taidpt tag BUNDLE SOURCE --bank FILE. The --tags need PyTorch and the model's weights.
    """
    from taidpt.export.classes.bank_job import BankRequest, make_bank

    made, notes = make_bank(BankRequest(source, **options), output)
    for note in notes:
        click.echo(note, err=True)
    click.echo(f"{output}: {len(made.names)} tags, {made.dim} dimensions")
    sources = sorted({threshold.source for threshold in made.thresholds})
    click.echo(f"  thresholds: {', '.join(sources) or 'none'}")


@click.command()
@click.argument("bundle", type=_PATH)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--bank", "banks", type=_PATH, multiple=True, metavar="FILE", help="A bank.")
@click.option("--tags", metavar="NAMES|FILE", help="Make a bank of these names in every way.")
@click.option("--prompts", type=_PATH, help="Tuned prompts, whose contexts the --tags get too.")
@_TEXTS
@_PRETRAINED
@click.option("--calibrate", is_flag=True, help="Set all thresholds from these very frames.")
@click.option("--every", type=click.IntRange(min=1), default=1, help="Take each N-th frame.")
@click.option("--max-frames", "most", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--top", type=click.IntRange(min=1), default=3, help="Least tags in a cell.")
@click.option("--show", type=click.IntRange(min=0), default=20, help="Frames in the table.")
@click.option("--html", type=_PATH, metavar="FILE", help="Write a page with the pictures.")
@click.option("--json", "json_path", type=_PATH, metavar="FILE", help="Write everything as JSON.")
@click.help_option("-h", "--help")
def compare_banks(
    bundle: Path, top: int, show: int, html: Path | None, json_path: Path | None, **options: Any
) -> None:
    """Show side by side what several banks would tag on the frames of SOURCE.

    BUNDLE's encoder sees the frames; its own bank may be a constant. Banks are files (--bank), or
    made here of --tags: from templates, from --prompts, from --texts.
    """
    from taidpt.export.checks.compare_banks import CompareJob
    from taidpt.export.checks.compare_banks import compare_banks as compare
    from taidpt.export.cli.bank_printing import print_comparison, write_json, write_page
    from taidpt.runtime.storage.outputs import refuse_unwritable

    for output in (html, json_path):
        if output is not None:
            refuse_unwritable(output)
    found = compare(CompareJob(bundle, keep_pictures=html is not None, **options))
    print_comparison(found, top, show)
    if html is not None:
        write_page(found, html, top)
    if json_path is not None:
        write_json(found, json_path)
    if found.seen.problem is not None:
        raise found.seen.problem

"""The commands `bank` and `compare-banks`: parse, call the library, print."""

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
    help="File of captions, for centroids and linear. May be given several times.",
)
_PRETRAINED = click.option(
    "--pretrained",
    metavar="FILE|DIR",
    help="File of the weights, or the model's folder. [default: the one that the source names]",
)


@click.command()
@click.argument("source", type=_PATH, metavar="PROMPTS|BUNDLE")
@click.option("-o", "--output", type=_PATH, required=True, help="The bank file to write.")
@click.option(
    "--tags",
    metavar="NAMES|FILE",
    help='Other tags: "forklift, hard hat", a tags.yaml or a .txt. [default: the source\'s own]',
)
@click.option(
    "--from",
    "choice",
    type=_CHOICES,
    help="What the rows of --tags are made from. [default: prompts where there are some, else "
    "templates]",
)
@_TEXTS
@_PRETRAINED
@click.help_option("-h", "--help")
def bank(source: Path, output: Path, **options: Any) -> None:
    """Write the class bank of tuned PROMPTS or of a BUNDLE, or a bank of other --tags.

    A bundle whose bank is an input takes any such file, without a rebuild:
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
@click.option(
    "--bank",
    "banks",
    type=_PATH,
    multiple=True,
    metavar="FILE",
    help="Bank file, or a bundle. May be given several times.",
)
@click.option(
    "--tags",
    metavar="NAMES|FILE",
    help="Make banks of these tags, one for each way that is possible.",
)
@click.option("--prompts", type=_PATH, metavar="FILE", help="Tuned prompts for --tags.")
@_TEXTS
@_PRETRAINED
@click.option("--calibrate", is_flag=True, help="Set all thresholds from these frames.")
@click.option(
    "--every", type=click.IntRange(min=1), default=1, show_default=True, help="Use each N-th frame."
)
@click.option(
    "--max-frames",
    "most",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Frames at most.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Tags in a cell, at least.",
)
@click.option(
    "--show", type=click.IntRange(min=0), default=20, show_default=True, help="Frames in the table."
)
@click.option("--html", type=_PATH, metavar="FILE", help="Write a page with the pictures.")
@click.option("--json", "json_path", type=_PATH, metavar="FILE", help="Write everything as JSON.")
@click.help_option("-h", "--help")
def compare_banks(
    bundle: Path, top: int, show: int, html: Path | None, json_path: Path | None, **options: Any
) -> None:
    """Show side by side what several banks would tag on the frames of SOURCE.

    BUNDLE's encoder runs on the frames; its own bank may be a constant. Banks are files (--bank),
    or made from --tags with templates, --prompts or --texts.
    """
    from taidpt.export.checks.compare_banks import CompareJob, compare_banks as compare
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

"""The commands `bank make` and `bank compare`: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from taidpt.runtime.options import FILE, PATH, path_option

__all__ = ["compare", "make"]

_CHOICES = click.Choice(["prompts", "templates", "templates80", "centroids", "linear"])
_TEXTS = path_option(
    "--texts", "For centroids and linear; may be given several times.", multiple=True
)
_PRETRAINED = path_option(
    "--pretrained", "A file, or the model's folder.", show_default="those that the source names"
)


@click.command()
@click.argument("source", type=PATH, metavar="PROMPTS|BUNDLE")
@path_option("--output", "A bank file.", required=True)
@path_option("--tags", show_default="the source's own")
@click.option(
    "--from",
    "choice",
    type=_CHOICES,
    show_default="prompts where there are some, else templates",
    help="What the rows of --tags are made from.",
)
@_TEXTS
@_PRETRAINED
def make(source: Path, output: Path, **options: Any) -> None:
    """Write a class bank: tags in one file.

    The tags are those of tuned PROMPTS or of a BUNDLE, or other --tags, which need PyTorch and the
    model's weights. A bundle whose bank is an input takes any such file, without a rebuild:
    taidpt tag BUNDLE SOURCE --bank FILE.
    """
    from taidpt.export.classes.bank_job import BankRequest, make_bank

    made, notes = make_bank(BankRequest(source, **options), output)
    for note in notes:
        click.echo(note, err=True)
    click.echo(f"{output}: {len(made.names)} tags, {made.dim} dimensions")
    sources = sorted({threshold.source for threshold in made.thresholds})
    click.echo(f"  thresholds: {', '.join(sources) or 'none'}")


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("sources", nargs=-1, required=True, type=FILE, metavar="SOURCE...")
@path_option("--bank", "Also a bundle; may be given several times.", to="banks", multiple=True)
@path_option("--tags", "Gives a bank for each possible way.")
@path_option("--prompts", "For --tags.")
@_TEXTS
@_PRETRAINED
@click.option("--calibrate", is_flag=True, help="Set all thresholds from these frames.")
@path_option("--every")
@path_option("--max-frames", to="most", default=200)
@path_option("--top", default=3)
@click.option("--show", type=click.IntRange(0), default=20, help="Frames in the table.")
@path_option("--report")
@path_option("--json", to="json_path")
def compare(
    bundle: Path, top: int, show: int, report: Path | None, json_path: Path | None, **options: Any
) -> None:
    """Show side by side what banks would tag on your frames.

    BUNDLE's encoder runs on the frames; its own bank may be a constant. Banks are files (--bank),
    or made from --tags with templates, --prompts or --texts.
    """
    from taidpt.export.checks.compare_banks import CompareJob, compare_banks
    from taidpt.export.cli.bank_printing import print_comparison, write_page
    from taidpt.runtime.storage.outputs import refuse_unwritable, write_json

    for output in (report, json_path):
        refuse_unwritable(output)
    found = compare_banks(CompareJob(bundle, keep_pictures=report is not None, **options))
    if str(json_path) != "-":
        print_comparison(found, top, show)
    if report is not None:
        write_page(found, report, top)
    write_json(json_path, found.to_json())
    if found.seen.problem is not None:
        raise found.seen.problem

"""Output of `taidpt bank compare`: tables, and a page with pictures."""

from __future__ import annotations

import base64
from importlib import resources
from pathlib import Path

import click

from taidpt.export.checks.compare_banks import Comparison
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.storage.outputs import write_output

__all__ = ["print_comparison", "write_page"]

_CELL = 24


def print_comparison(found: Comparison, top: int, show: int) -> None:
    """Print each bank's tags on the first frames, then each tag's share of frames."""
    for note in found.notes:
        click.echo(note, err=True)
    banks = list(found.banks)
    width = max(map(len, (*found.seen.frames[:show], *found.tag_names, "frame")))
    line = f"{{:<{width}}}" + f"  {{:<{_CELL}}}" * len(banks)
    click.echo("* is on; the others are the best tags that are off")
    click.echo(line.format("frame", *banks).rstrip())
    for row, frame in enumerate(found.seen.frames[:show]):
        columns = [_cells(found.tags_of(bank, row, top)) for bank in banks]
        for at in range(max(map(len, columns))):
            parts = [column[at] if at < len(column) else "" for column in columns]
            click.echo(line.format("" if at else frame, *parts).rstrip())
    click.echo(f"\nshare of {len(found.seen.frames)} frames in which a tag is on")
    click.echo(line.format("tag", *banks).rstrip())
    shares = [_shares(found, bank) for bank in banks]
    unsure = [found.unsure(bank) for bank in banks]
    for tag in found.tag_names:
        parts = [
            f"{100 * share[tag]:5.1f} %{' ?' * (tag in doubted)}" if tag in share else "-"
            for share, doubted in zip(shares, unsure, strict=True)
        ]
        click.echo(line.format(tag, *parts).rstrip())
    if any(unsure):
        click.echo(f"\n{_doubt(found)}")
    if any(t.source == "default" for bank in found.banks.values() for t in bank.thresholds):
        click.echo("\nthresholds are defaults: --calibrate sets them from these frames")


def write_page(found: Comparison, path: Path, top: int) -> None:
    """Write one HTML page that needs no network: a row per frame, a column per bank.

    Raises:
        MissingDependencyError: jinja2 is not installed.
        InputError: the page cannot be written.
    """
    with optional_packages("--report"):
        from jinja2 import Template
    source = resources.files("taidpt.export").joinpath("files/banks.html.j2").read_text("utf-8")
    seen = enumerate(zip(found.seen.frames, found.seen.pictures, strict=True))
    rows = [
        {
            "name": frame,
            "picture": base64.b64encode(picture).decode(),
            "cells": [found.tags_of(bank, row, top) for bank in found.banks],
        }
        for row, (frame, picture) in seen
    ]
    shares = [_shares(found, bank) for bank in found.banks]
    unsure = [found.unsure(bank) for bank in found.banks]
    tags = [
        {
            "name": tag,
            "shares": [
                (share.get(tag), tag in doubted)
                for share, doubted in zip(shares, unsure, strict=True)
            ],
        }
        for tag in found.tag_names
    ]
    doubt = _doubt(found) if any(unsure) else ""
    page = Template(source, autoescape=True).render(
        banks=list(found.banks), rows=rows, tags=tags, doubt=doubt
    )
    write_output(path, page.encode())
    click.echo(f"wrote {path}", err=True)


def _doubt(found: Comparison) -> str:
    least = min(one.effective_frames for one in found.calibrated.values())
    return (
        f"? is unsure: these {len(found.seen.frames)} frames are worth {least:.0f} independent "
        "ones; give more frames of different occasions, or label some (taidpt calibrate --labels)"
    )


def _cells(tags: list[tuple[str, float, bool]]) -> list[str]:
    return [f"{'*' if on else ' '} {name[: _CELL - 8]} {score:.2f}" for name, score, on in tags]


def _shares(found: Comparison, bank: str) -> dict[str, float]:
    shares = found.on(bank).mean(axis=0).tolist()
    return dict(zip(found.banks[bank].names, shares, strict=True))

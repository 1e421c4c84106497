"""Output of `taidpt bank compare`: tables, and a page with pictures."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from taidpt.export.checks.compare_banks import Comparison
from taidpt.runtime.pages.page import page
from taidpt.runtime.pages.timeline import image_source
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
        InputError: the page cannot be written.
    """
    unsure = [found.unsure(bank) for bank in found.banks]
    doubt = f'<p class="soft">{html.escape(_doubt(found))}</p>\n' if any(unsure) else ""
    summary = "Green tags reach their thresholds; the others are the best of those that do not."
    body = (
        _table("frame", list(found.banks), _frame_rows(found, top))
        + "<h2>Share of frames in which a tag is on</h2>\n"
        + _table("tag", list(found.banks), _share_rows(found, unsure))
        + doubt
    )
    write_output(path, page("What each bank would tag", body, summary))
    click.echo(f"wrote {path}", err=True)


def _table(first: str, banks: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in (first, *banks))
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>\n"
    )


def _frame_rows(found: Comparison, top: int) -> Iterator[str]:
    seen = enumerate(zip(found.seen.frames, found.seen.pictures, strict=True))
    for row, (frame, picture) in seen:
        name = html.escape(frame)
        cells = "".join(_cell(found.tags_of(bank, row, top)) for bank in found.banks)
        yield (
            f'<tr><td><img class="frame" alt="{name}" src="{image_source(picture)}">'
            f'<span class="soft">{name}</span></td>{cells}</tr>\n'
        )


def _cell(tags: list[tuple[str, float, bool]]) -> str:
    lines = "".join(
        f'<div class="{"on" if on else "soft"}">{html.escape(name)} {score:.2f}</div>'
        for name, score, on in tags
    )
    return f"<td>{lines}</td>"


def _share_rows(found: Comparison, unsure: Sequence[frozenset[str]]) -> Iterator[str]:
    shares = [_shares(found, bank) for bank in found.banks]
    for tag in found.tag_names:
        cells = "".join(
            _share_cell(share.get(tag), tag in doubted)
            for share, doubted in zip(shares, unsure, strict=True)
        )
        yield f"<tr><th>{html.escape(tag)}</th>{cells}</tr>\n"


def _share_cell(share: float | None, doubted: bool) -> str:
    if share is None:
        return '<td class="soft">–</td>'
    mark = " ?" if doubted else ""
    return (
        f'<td><span class="meter"><span style="width:{100 * share:.1f}%"></span></span>'
        f"{100 * share:.1f} %{mark}</td>"
    )


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

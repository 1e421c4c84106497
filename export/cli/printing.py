"""What the export commands print."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from taidpt.export.checks.doctor import Finding
    from taidpt.export.checks.verify import Agreement, VerifyReport
    from taidpt.export.demo.photographs import PhotographsResult
    from taidpt.export.demo.run import DemoResult
    from taidpt.export.demo.shipped import PictureTags
    from taidpt.export.exporter import ExportResult
    from taidpt.export.parity.centred_cosine import ParityReport
    from taidpt.export.precision.request import EngineRequest
    from taidpt.export.precision.variant import Variant

__all__ = [
    "folder_size",
    "parity_lines",
    "precision_lines",
    "print_demo",
    "print_findings",
    "print_photographs",
    "print_result",
    "print_verify",
    "variant_lines",
]


def print_result(result: ExportResult) -> None:
    """Print a bundle's path, contents and parity."""
    manifest = result.manifest
    click.echo(
        f"{result.path}: {len(manifest.tags)} tags, {manifest.model.name}, "
        f"{folder_size(result.path) / 1e6:.1f} MB"
    )
    click.echo(f"  {manifest.input.describe_view()}")
    for line in parity_lines(result.parity):
        click.echo(f"  {line}")
    if not result.parity.passed:
        click.echo("  FAILED the parity check, written because of --force")
    source = manifest.tags[0].threshold.source
    if source == "default":
        click.echo(
            "  thresholds are defaults: scores rank tags, on and off mean little before calibration"
        )


def parity_lines(report: ParityReport) -> list[str]:
    """A report as two lines."""
    figures = ", ".join(f"{head.name} {head.minimum:.6f}" for head in report.heads)
    return [
        f"least centred cosine over {len(report.pictures)} pictures: {figures}",
        f"largest score difference: {report.head('scores').largest_difference:.1e}",
    ]


def variant_lines(variant: Variant, request: EngineRequest) -> list[str]:
    """Lines on a graph in another precision; none for the bundle's own."""
    if not variant.parity:
        return []
    path = variant.bundle.path / variant.file
    size = path.stat().st_size / 1e6
    first = f"{path}: {size:.1f} MB, {'made' if variant.fresh else 'exists already'}"
    return [first, *precision_lines(variant.parity, request)]


def precision_lines(parity: dict[str, Any], request: EngineRequest) -> list[str]:
    """Lines on a graph's calibration and parity, from its parity report."""
    notes, lines = parity.get("notes", {}), []
    if "layers" in notes:
        lines.append(
            f"  calibrated on {notes.get('calibration_frames')} frames ({notes['calibration']}); "
            f"{len(notes['layers_in_fp32'])} of {notes['layers']} layers stay in fp32"
        )
        lines += [
            f"    {layer['name']}: alone it loses {layer['loss']:.4f}"
            for layer in notes["layers_in_fp32"]
        ]
    if not notes.get("verified"):
        return [*lines, f"  unverified: {notes.get('reason', 'not run here')}"]
    found = parity["outputs"]
    figures = ", ".join(f"{name} {found[name]['minimum']:.5f}" for name in parity["gated"])
    verdict = "" if parity["passed"] else "FAILED its check, kept because of --force; "
    lines.append(f"  {verdict}least centred cosine {figures} (bound {parity['bound']})")
    if "map_drop" in notes:
        lines.append(f"  mAP on the labelled pictures: {-notes['map_drop']:+.2f} points")
    elif request.max_map_drop is not None:
        lines.append("  mAP was not measured: give the pictures' tags with --truth FILE")
    if "layers" in notes and request.gate_overlaps_calibration:
        lines.append(
            "  judged on its calibration pictures, which flatters it: give others (--images DIR)"
        )
    return lines


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def print_demo(result: DemoResult) -> None:
    """Print thresholds, the video's timeline, the table of methods, files and what is next."""
    from taidpt.export.demo.page import NEXT_COMMANDS, threshold_line
    from taidpt.runtime.events.machine import Interval
    from taidpt.runtime.sinks.person import timeline_lines

    report = result.report
    click.echo("A toy world: rendered emoji and a tiny CLIP trained on them. No photograph here.")
    click.echo(f"\n{threshold_line(report.tags)}.")
    end_s = max(span.end_s for span in (*report.truth, *report.found))
    for title, spans in (("truth", report.truth), ("found", report.found)):
        click.echo(f"\nTimeline, {title}:")
        intervals = [Interval(span.tag, span.start_s, span.end_s, peak=0.0) for span in spans]
        for line in timeline_lines(intervals, end_s):
            click.echo(f"  {line}")
    click.echo("\nmAP on held-out pictures, %:")
    width = max(len(score.name) for score in report.scores)
    for score in report.scores:
        value = score.mean_average_precision
        click.echo(f"  {score.name:<{width}}  {value:5.1f}  {score.explanation}")
    click.echo(f"\nprompts  {result.prompts}\nbundle   {result.bundle}\ntags     {result.jsonl}")
    click.echo(f"video    {result.video}\npage     {result.page}")
    click.echo("\nyour own tags next:")
    for command in NEXT_COMMANDS:
        click.echo(f"  {command}")


def print_photographs(result: PhotographsResult) -> None:
    """Print how many frames were tagged, the files, and what is next."""
    from taidpt.export.demo.page import NEXT_COMMANDS

    if result.shipped:
        _print_shipped(result.shipped)
    else:
        click.echo(f"{result.frames} pictures and frames tagged")
    thresholds = "calibrated on these pictures" if not result.note else f"from texts: {result.note}"
    click.echo(f"thresholds {thresholds}")
    click.echo(f"\nprompts   {result.prompts}\nbundle    {result.bundle}")
    click.echo(f"pictures  {result.pictures}\npage      {result.page}\n\nyour own tags next:")
    for command in NEXT_COMMANDS:
        click.echo(f"  {command}")


def _print_shipped(pictures: Sequence[PictureTags]) -> None:
    """Print the tags of each photograph beside those that it shows, and the counts."""
    from taidpt.export.demo.shipped import Agreement

    width = max(len(picture.name) for picture in pictures)
    tags = max(len(", ".join(sorted(picture.shown))) for picture in pictures)
    click.echo(f"{'photograph':<{width}}  {'shows':<{tags}}  found, best first; + is wrong")
    for picture in pictures:
        shown = ", ".join(sorted(picture.shown))
        found = ", ".join(tag if tag in picture.shown else f"+{tag}" for tag in picture.on)
        click.echo(f"{picture.name:<{width}}  {shown:<{tags}}  {found or '-'}")
    counts = Agreement.of(pictures)
    click.echo(
        f"\n{counts.right} tags right, {counts.missed} missed, {counts.wrong} wrong: micro F1 "
        f"{100 * counts.micro_f1:.0f} %\nthe tag with the best score is right on {counts.best} of "
        f"{len(pictures)} photographs"
    )


def print_verify(report: VerifyReport) -> None:
    """Print a table of all candidates."""
    click.echo(
        f"{report.bundle}: all files whole; {report.pictures} pictures; reference: {report.truth}"
    )
    for line in _table(report.candidates):
        click.echo(f"  {line}".rstrip())


def _table(candidates: Sequence[Agreement]) -> list[str]:
    """A row of figures per candidate, or the reason why there are none."""
    first = max((len(candidate.name) for candidate in candidates), default=0)
    reports = [candidate.report for candidate in candidates if candidate.report is not None]
    gated = [name.removesuffix("_features") for name in reports[0].gated] if reports else []
    title = [*gated, "bound", "scores ±", "top 5", "on/off", "mAP"]
    rows = [None if c.report is None else _figures(c, c.report) for c in candidates]
    columns = zip(title, *filter(None, rows), strict=True)
    widths = [max(map(len, column)) for column in columns]

    def padded(cells: Sequence[str]) -> str:
        return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))

    lines = []
    if reports:
        lines += [
            "least centred cosine over pictures and patches:",
            f"{'':{first}}  {padded(title)}",
        ]
    for candidate, row in zip(candidates, rows, strict=True):
        verdict = "ok" if candidate.passed else "FAILED"
        text = _why(candidate) if row is None else f"{padded(row)}  {verdict}"
        lines.append(f"{candidate.name:{first}}  {text}")
    return lines


def _figures(candidate: Agreement, report: ParityReport) -> list[str]:
    drop = candidate.map_drop
    return [
        *(f"{report.head(name).minimum:.5f}" for name in report.gated),
        str(report.bound),
        f"{report.head('scores').largest_difference:.1e}",
        f"{candidate.top5:.1%}",
        f"{candidate.on:.1%}",
        "" if drop is None else f"{-drop:+.2f}",
    ]


def _why(candidate: Agreement) -> str:
    if candidate.broke:
        return f"FAILED: {candidate.reason}"
    return f"not run here, unverified: {candidate.reason}"


def print_findings(findings: Sequence[Finding]) -> None:
    """Print one line per part: its state, and the command that helps."""
    width = max(len(finding.what) for finding in findings)
    marks = {True: "ok", False: "!!", None: "--"}
    columns = max(shutil.get_terminal_size().columns, 60)
    indent = " " * (width + 5)
    for finding in findings:
        line = f"{marks[finding.good]} {finding.what:{width}}  {finding.state}"
        mend = f"→ {finding.mend}" if finding.mend else ""
        fits = len(f"{line}   {mend}") <= columns
        text = f"{line}   {mend}".rstrip() if fits else line
        click.echo(textwrap.fill(text, columns, subsequent_indent=indent))
        if mend and not fits:  # a command is never wrapped, so that it can be copied
            click.echo(f"{indent}{mend}")

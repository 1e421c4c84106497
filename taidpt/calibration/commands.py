"""The command line of calibration: parse, call the library, print."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["calibrate"]

_FILE = click.Path()
# Options that a report on the tags can use.
_FOR_REPORT = ("bundle", "sources", "bank", "texts", "max_frames", "report")


@click.command()
@click.argument("bundle", type=_FILE, required=False)
@click.option(
    "--frames",
    "sources",
    type=_FILE,
    multiple=True,
    metavar="SOURCE",
    help="Unlabelled pictures or video of your scene. May be given several times.",
)
@click.option(
    "--bank",
    type=_FILE,
    metavar="FILE",
    help="Class bank whose tags are used. It is calibrated in place, with the BUNDLE's graph.",
)
@click.option(
    "--scores",
    type=_FILE,
    metavar="FILE",
    help="Score file. .npz with global, local, maybe targets.",
)
@click.option("--texts", type=_FILE, metavar="FILE", help="File of captions. In place of frames.")
@click.option(
    "--labels", type=_FILE, metavar="FILE", help="A few labels, CSV with frame,tag,present."
)
@click.option(
    "--judge", is_flag=True, help="Compare with thresholds chosen with --scores' targets."
)
@click.option("--dry-run", is_flag=True, help="Show what would be done; write nothing.")
@click.option(
    "--report",
    type=_FILE,
    metavar="FILE",
    help="HTML page to write. Tags that are easily taken for each other; .png and - work too.",
)
@click.option(
    "--json",
    "json_path",
    type=_FILE,
    metavar="FILE",
    help="JSON file to write; - is standard output.",
)
@click.option("--every", type=click.IntRange(1), default=1, help="Use every N-th frame.")
@click.option("--max-frames", type=click.IntRange(1), default=5000, help="Frames at most.")
@click.option(
    "--merge-weight",
    type=click.FloatRange(0, 1),
    default=0.5,
    help="Share of the local score in the merged score, 0 to 1. Of --scores.",
)
@click.option(
    "--score-transform",
    type=click.Choice(["none", "center", "log_softmax", "auto"]),
    default="none",
    help="Transform of a picture's scores over its tags. Of --scores; a bundle brings its own. "
    "auto: choose one, with a temperature and a bias, without labels; with a BUNDLE it needs "
    "--bank.",
)
@click.pass_context
def calibrate(
    context: click.Context, /, bundle: str | None, report: str | None, **options: Any
) -> None:
    """Set thresholds from unlabelled frames of your scene.

    taidpt calibrate BUNDLE --frames clip.mp4 writes them into the bundle,
    with --bank site.bank into that bank and not into the bundle;
    taidpt calibrate --scores FILE.npz --judge only measures;
    taidpt calibrate BUNDLE [--frames DIR] --report tags.html only reports near-duplicates, tags
    that are on together and tags that are never on. For a report BUNDLE may be a .bank.
    """
    from taidpt.runtime.optional import require_extra

    require_extra("calibrate", "taidpt calibrate")
    if report is None:
        from taidpt.calibration.job import job_from_options, run_calibrate

        quiet = options["json_path"] == "-"  # standard output is the JSON's alone
        run_calibrate(job_from_options(bundle, {**options, "quiet": quiet}))
        return
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name not in _FOR_REPORT and source != click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"{parameter.opts[0]} has no effect with --report.")
    if bundle is None:
        raise click.UsageError("Missing argument 'BUNDLE'.")
    from taidpt.calibration.confusable_job import run_confusable

    chosen = {name: options[name] for name in ("sources", "texts", "bank")}
    chosen |= {"output": None if report == "-" else report, "most": options["max_frames"]}
    run_confusable(bundle, **chosen)

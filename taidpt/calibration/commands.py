"""The command line of calibration: parse, call the library, print."""

from __future__ import annotations

from typing import Any

import click

from taidpt.runtime.options import FILE, option

__all__ = ["calibrate"]

# Options that a report on the tags can use.
_FOR_REPORT = ("bundle", "sources", "bank", "texts", "max_frames", "report")


@click.command()
@click.argument("bundle", type=FILE, required=False)
@option("--frames", "May be given several times.", to="sources", multiple=True)
@option("--bank", "It is calibrated in place, with the BUNDLE's graph.")
@option("--scores", ".npz with global, local, maybe targets.")
@option("--texts", "In place of frames.")
@click.option(
    "--labels", type=FILE, metavar="FILE", help="A few labels, CSV with frame,tag,present."
)
@click.option(
    "--judge", is_flag=True, help="Compare with thresholds chosen with --scores' targets."
)
@option("--dry-run")
@option("--report", "Tags that are easily taken for each other; .png and - work too.")
@option("--json", to="json_path")
@option("--every")
@option("--max-frames", default=5000)
@option("--merge-weight", "Of --scores.", type=click.FloatRange(0, 1), default=0.5)
@option(
    "--score-transform",
    "Of --scores; a bundle brings its own. auto: choose one, with a temperature and a bias, "
    "without labels; with a BUNDLE it needs --bank.",
    type=click.Choice(["none", "center", "log_softmax", "auto"]),
    default="none",
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

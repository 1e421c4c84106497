"""The command line of calibration: parse, call the library, print."""

from __future__ import annotations

import click

__all__ = ["calibrate", "confusable"]


@click.command()
@click.argument("bundle", type=click.Path(), required=False)
@click.option(
    "--frames", "sources", multiple=True, metavar="SOURCE", help="Your scene: DIR, video."
)
@click.option(
    "--bank", metavar="FILE", help="Calibrate this bank in place, with the BUNDLE's graph."
)
@click.option("--scores", metavar="FILE.npz", help="A matrix: global, local, maybe targets.")
@click.option("--texts", metavar="FILE", help="Held-out captions (needs torch), or their .npz.")
@click.option("--labels", metavar="FILE.csv", help="A few labels: frame,tag,present.")
@click.option("--report", is_flag=True, help="Compare with thresholds chosen with labels.")
@click.option("--dry-run", is_flag=True, help="Print, and write nothing into the bundle or bank.")
@click.option("--json", "json_path", metavar="FILE", help="Write what was learned as JSON.")
@click.option("--every", type=click.IntRange(min=1), default=1, help="Take each N-th frame.")
@click.option("--max-frames", type=click.IntRange(min=1), default=5000, show_default=True)
@click.option("--merge-weight", type=click.FloatRange(0, 1), default=0.5, show_default=True)
@click.option(
    "--score-transform",
    type=click.Choice(["none", "center", "log_softmax", "auto"]),
    default="none",
    show_default=True,
    help="Transform of --scores over a picture's tags; a bundle brings its own. auto: choose one, "
    "with a temperature and a bias, without labels; with a BUNDLE it needs --bank.",
)
@click.help_option("-h", "--help")
def calibrate(bundle: str | None, **options: object) -> None:
    """Set every tag's threshold from unlabelled frames of your own scene.

    taidpt calibrate BUNDLE --frames clip.mp4 writes them into the bundle,
    with --bank site.bank into that bank and not into the bundle;
    taidpt calibrate --scores FILE.npz --report only measures.
    """
    from taidpt.runtime.optional import require_extra

    require_extra("calibrate", "taidpt calibrate")
    from taidpt.calibration.job import job_from_options, run_calibrate

    run_calibrate(job_from_options(bundle, options))


@click.command()
@click.argument("bundle", type=click.Path())
@click.option(
    "--frames", "sources", multiple=True, metavar="SOURCE", help="Your scene: DIR, video."
)
@click.option("--bank", metavar="FILE", help="This bank's tags, with the BUNDLE's graph.")
@click.option("--texts", metavar="FILE", help="Captions: which tags do they name?")
@click.option("-o", "--output", metavar="FILE", help="A picture (.png) or a page (.html).")
@click.option("--max-frames", type=click.IntRange(min=1), default=5000, show_default=True)
@click.help_option("-h", "--help")
def confusable(
    bundle: str,
    sources: tuple[str, ...],
    texts: str | None,
    output: str | None,
    max_frames: int,
    bank: str | None,
) -> None:
    """Report tags that are confusable: near-duplicates, on together, never on, without texts.

    taidpt confusable BUNDLE [--frames pictures/] [-o report.html]; a .bank alone will do too.
    """
    from taidpt.calibration.confusable_job import run_confusable

    run_confusable(bundle, sources, texts, output, max_frames, bank)

"""The command line of the runtime: parse, call the library, print."""

from __future__ import annotations

import click

from taidpt.runtime.backends import DEVICES

__all__ = ["bench", "tag"]


@click.command()
@click.argument("bundle", type=click.Path())
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--jsonl", metavar="FILE", help="Write a JSON line a frame; - is standard output.")
@click.option("--events", metavar="FILE", help="Write a JSON line when a tag goes on or off.")
@click.option("--csv", metavar="FILE", help="Write a table: a row a frame, a column a tag.")
@click.option("--vtt", metavar="FILE", help="Write WebVTT subtitles of a video.")
@click.option("--srt", metavar="FILE", help="Write SRT subtitles of a video.")
@click.option("--overlay", metavar="FILE", help="Write a video with the tags painted on.")
@click.option("--webhook", metavar="URL", help="POST each event as JSON to URL.")
@click.option("--mqtt", metavar="URL", help="Publish events: mqtt://[user:pw@]host[:port][/topic].")
@click.option("--heatmap", metavar="TAG", help="Paint where TAG is seen onto the overlay.")
@click.option("--report", metavar="FILE", help="Write an HTML page: timeline and pictures.")
@click.option("--top", type=click.IntRange(min=1), help="Only the best tags of each frame.")
@click.option("--threshold", type=float, help="One threshold for all tags, over the bundle's own.")
@click.option("--bank", metavar="FILE", help="Other tags, for a bundle made with --bank input.")
@click.option("--watch-bank", is_flag=True, help="Take the file of --bank again when it changes.")
@click.option("--every", type=click.IntRange(min=1), default=1, help="Take each N-th frame.")
@click.option("--max-fps", type=click.FloatRange(min=0, min_open=True), help="Frames a second.")
@click.option("--recursive", is_flag=True, help="Look into the folders of a folder too.")
@click.option("--roi", metavar="X,Y,W,H", help="Use this part of each frame, in pixels.")
@click.option(
    "--decoder",
    default="auto",
    metavar="NAME",
    help="auto takes a hardware decoder that works; software, cuda, vaapi, … or fail.",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, help="Frames in one run.")
@click.option(
    "--skip-still",
    type=click.FloatRange(min=0, min_open=True),
    metavar="LEVELS",
    help="Do not tag frames that differ less than this, in grey levels, from the last tagged one.",
)
@click.option("--smoothing", type=click.FloatRange(min=0), default=0.3, help="Seconds.")
@click.option("--min-on", type=click.FloatRange(min=0), default=0.2, help="Least seconds on.")
@click.option("--min-off", type=click.FloatRange(min=0), default=0.5, help="Least seconds off.")
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    help="auto takes the best that works here; any other works or fails.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the inference.")
@click.option(
    "--resize",
    type=click.Choice(["exact", "fast"]),
    default="exact",
    help="exact is open_clip's resize to one grey level; fast is a few levels away at edges.",
)
@click.option("--trust-engine", is_flag=True, help="Run engines that were not built here.")
@click.option("--state", metavar="FILE", help="Keep a camera's state here over restarts.")
@click.option("--profile", is_flag=True, help="Print how long each stage takes, at the end.")
@click.help_option("-h", "--help")
def tag(bundle: str, sources: tuple[str, ...], **options: object) -> None:
    """Tag pictures, folders, videos, cameras and streams with BUNDLE.

    A SOURCE is a picture, a folder, a video, a camera (/dev/video0), a stream (rtsp://…) or a
    GStreamer pipeline (gst:…).

    Without an output a person reads the tags: a line a picture, a timeline a video. Several
    outputs may be given at once.
    """
    from taidpt.runtime.tag.job import run_tag
    from taidpt.runtime.tag.request import job_from_options

    run_tag(job_from_options(bundle, sources, options))


def _batch_list(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"expected whole numbers as 1,2,4, got {value!r}") from None


@click.command()
@click.argument("bundle", type=click.Path())
@click.option("--batches", default="1,2,4,8", callback=_batch_list, help="Batch sizes to sweep.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=2.0, help="Each.")
@click.option("--json", "target", metavar="FILE", help="Write the figures as JSON too.")
@click.option("--device", type=click.Choice(DEVICES), default="auto")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the inference.")
@click.option("--resize", type=click.Choice(["exact", "fast"]), default="exact")
@click.option("--trust-engine", is_flag=True, help="Run engines that were not built here.")
@click.help_option("-h", "--help")
def bench(bundle: str, batches: tuple[int, ...], seconds: float, **options: object) -> None:
    """Measure BUNDLE on this machine, on synthetic frames.

    The bare encoder (the whole graph where no onnx is installed to cut it), the tagger on frames of
    the model's size, on 720p and 1080p frames, and a whole stream, for each batch size; all take
    turns. Where PyTorch and open_clip are installed,
    open_clip's encoder too, run eagerly.
    """
    from taidpt.runtime.bench.bench import bench_command

    bench_command(bundle, batches, seconds, **options)  # type: ignore[arg-type]

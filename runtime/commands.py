"""Command line of the runtime: parse options, call the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from taidpt.runtime.archive import FEATURES
from taidpt.runtime.errors import InputError
from taidpt.runtime.options import AT_LEAST_ONE, FILE, POSITIVE, Command, option, stacked
from taidpt.runtime.preprocess import RESIZES
from taidpt.runtime.sidecars import NAMINGS

__all__ = [
    "adapt",
    "archive",
    "archive_retag",
    "archive_write_tags",
    "bench",
    "export_triton",
    "serve",
    "tag",
]

_SECONDS = click.FloatRange(min=0)
_DEVICE = option("--device", "auto: the fastest that works here; any other: that or fail.")

# What runs the graph.
_backend_options = stacked(
    _DEVICE,
    option("--threads"),
    click.option(
        "--resize",
        type=click.Choice(RESIZES),
        default="exact",
        help="exact: open_clip's resize within one grey level; fast: some levels off at edges; "
        "decoder: FFmpeg scales videos and cameras while it decodes, some levels off.",
    ),
    option("--trust-engine"),
)
# Which frames are tagged, and how events come of them.
_frame_options = stacked(
    option("--every"),
    option("--max-fps", show_default="all frames"),
    click.option("--roi", metavar="X,Y,W,H", help="Tag this part of each frame, in pixels."),
    click.option(
        "--decoder",
        default="auto",
        metavar="NAME",
        help="Video decoder: auto (a hardware decoder that works), software, cuda, vaapi, …",
    ),
    option("--batch", default=1),
    click.option(
        "--skip-still",
        type=POSITIVE,
        metavar="LEVELS",
        help="Skip frames that differ less than this from the last tagged one, in grey levels.",
    ),
    click.option(
        "--smoothing",
        type=_SECONDS,
        default=0.3,
        help="Time constant of score smoothing, in seconds.",
    ),
    click.option("--min-on", type=_SECONDS, default=0.2, help="Shortest time on, in seconds."),
    click.option("--min-off", type=_SECONDS, default=0.5, help="Shortest time off, in seconds."),
)


def _file(name: str, text: str) -> Callable[[Command], Command]:
    return click.option(name, type=FILE, metavar="FILE", help=text)


@click.command()
@click.argument("bundle", type=FILE)
@click.argument("sources", nargs=-1, required=True, type=FILE, metavar="SOURCE...")
@_file("--jsonl", "Write one JSON line per frame; - is stdout.")
@_file("--events", "Write one JSON line per event; - is stdout.")
@_file("--csv", "Write a table: one row per frame, a column per tag.")
@_file("--vtt", "Write WebVTT subtitles of one video.")
@_file("--srt", "Write SRT subtitles of one video.")
@_file("--overlay", "Write a video with the tags painted on.")
@click.option(
    "--save-frames",
    type=FILE,
    metavar="FOLDER",
    help="Write a JPEG, with its tags painted on, of each frame at which a tag comes on.",
)
@click.option("--heatmap", metavar="TAG", help="Paint the heatmap of TAG while TAG is on.")
@click.option("--show-off", is_flag=True, help="Paint the best tags that are off, too.")
@option("--report", "Timelines and pictures.")
@option("--webhook")
@option("--mqtt")
@option("--top", "Shows no others.", show_default="all")
@option("--threshold", show_default="the bundle's")
@option("--bank", "Needs an export with --swappable-bank.")
@click.option("--watch-bank", is_flag=True, help="Reload the file of --bank when it changes.")
@click.option("--recursive", is_flag=True, help="Include the subfolders of a folder.")
@_frame_options
@_file("--state", "Keep a camera's state in FILE across restarts.")
@click.option("--profile", is_flag=True, help="Print the time of each stage at the end.")
@option("--verbose")
@_backend_options
def tag(bundle: str, sources: tuple[str, ...], **options: object) -> None:
    """Tag pictures, folders, videos, cameras and streams.

    A SOURCE is a picture, a folder, a video, a camera (/dev/video0), a stream (rtsp://…) or a
    GStreamer pipeline (gst:…).

    Without an output option, tags are printed: a line per picture, a timeline per video. Several
    outputs can be written at once.
    """
    from taidpt.runtime.tag.job import run_tag
    from taidpt.runtime.tag.request import job_from_options

    run_tag(job_from_options(bundle, sources, options))


def _parse_batches(
    context: click.Context, parameter: click.Parameter, value: str
) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"expected whole numbers as 1,2,4, got {value!r}") from None


def _refuse_decoder(resize: str) -> None:
    if resize == "decoder":
        raise InputError(
            "--resize decoder is for the videos of tag, serve and archive; use exact or fast"
        )


@click.command()
@click.argument("bundle", type=FILE)
@option("--batches", default="1,2,4,8", callback=_parse_batches)
@option("--seconds")
@option("--json")
@_backend_options
def bench(json: str | None, **options: Any) -> None:
    """Measure BUNDLE on this machine, on synthetic frames.

    Measures, for each batch size and in turns: the bare encoder (the whole graph without the
    package onnx), the tagger on frames of the model's size, of 720p and of 1080p, and a whole
    stream. With PyTorch and open_clip, open_clip's encoder in eager mode too.
    """
    from taidpt.runtime.bench.bench import bench_command

    _refuse_decoder(options["resize"])
    bench_command(target=json, **options)


@click.command()
@click.argument("bundle", type=FILE)
@option("--frames", "May be given several times.", to="sources", multiple=True)
@click.option(
    "--examples",
    type=FILE,
    multiple=True,
    metavar="FOLDER",
    help="Pictures that show one tag; the folder's name is the tag. May be given several times.",
)
@option("--output", "A bank file.", show_default="BUNDLE's name with .bank")
@option("--bank", "In place of the BUNDLE's own.")
@option("--every")
@option("--max-frames", default=500)
@option("--dry-run")
@_backend_options
def adapt(bundle: str, **options: Any) -> None:
    """Learn class rows from unlabelled frames of your scene, or from examples.

    taidpt adapt BUNDLE --frames clip.mp4 -o site.bank blends the rows with what the scene's own
    patches look like. How much is chosen without labels; where that does not help, nothing is
    written.

    taidpt adapt BUNDLE --examples forklift --examples "hard hat" makes rows from 1 to 20 pictures a
    tag, new ones or better ones; with --frames against frames of the scene without these tags.
    """
    from taidpt.runtime.adapt.job import AdaptJob, run_adapt

    _refuse_decoder(options["resize"])
    names = ("device", "threads", "trust_engine", "resize")
    backend = {name: options.pop(name) for name in names}
    run_adapt(AdaptJob(bundle, **options, backend=backend))


@click.command()
@click.argument("bundle", type=FILE, required=False)
@click.argument("sources", nargs=-1, type=FILE, metavar="SOURCE...")
@_file("--config", "Site file: cameras, zones, rules and where events go, as YAML.")
@click.option("--host", show_default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), show_default="8000", help="Port.")
@_file("--token-file", "File with the token that clients need.")
@click.option("--data", type=FILE, metavar="FOLDER", help="Folder of events, banks and clips.")
@option("--bank", "Needs an export with --swappable-bank.")
@option("--prompts", "Its contexts are used for names that are added.")
@option("--webhook")
@option("--mqtt")
@option("--max-fps", show_default="5")
@option("--batch", show_default="one frame of each camera")
@option("--verbose")
@_backend_options
def serve(bundle: str | None, sources: tuple[str, ...], verbose: bool, **options: Any) -> None:
    """Serve a page and an API with the tags of cameras and streams.

    A SOURCE is a camera (/dev/video0), a stream (rtsp://…), a GStreamer pipeline (gst:…), or a
    file, which is played again and again. The page is at http://127.0.0.1:8000.
    """
    from taidpt.runtime.serve.server import config_from_options, run_serve

    source = click.get_current_context().get_parameter_source
    default = click.core.ParameterSource.DEFAULT
    given = {name: value for name, value in options.items() if source(name) is not default}
    run_serve(config_from_options(bundle, sources, given), verbose)


@click.command()
@click.argument("bundle", type=FILE)
@click.argument("sources", nargs=-1, required=True, type=FILE, metavar="SOURCE...")
@option("--output", "A folder of parquet tables.", required=True)
@click.option(
    "--features",
    type=click.Choice(FEATURES),
    default="none",
    help="Features to store, so that `taidpt archive retag` can ask for other tags later.",
)
@option("--workers", type=AT_LEAST_ONE, show_default="one a core, or one a GPU")
@click.option(
    "--deadline",
    type=POSITIVE,
    default=120.0,
    help="Longest time without a tagged frame, in seconds; then the clip is an error.",
)
@click.option(
    "--ray",
    metavar="CLUSTER",
    show_default="processes of this machine",
    help="Ray cluster that tags: auto, its address, or local for one on this machine.",
)
@click.option("--shard-clips", type=AT_LEAST_ONE, default=64, help="Clips per shard, at most.")
@click.option("--retry-errors", is_flag=True, help="Tag clips with errors again.")
@option("--top", "Frames store no others.", default=10)
@option("--threshold", show_default="the bundle's")
@option("--bank", "Needs an export with --swappable-bank.")
@_frame_options
@option("--verbose")
@_backend_options
def archive(bundle: str, sources: tuple[str, ...], output: str, **options: Any) -> None:
    """Tag an archive of recordings into parquet tables.

    A SOURCE is a video, a picture, a folder with all folders inside it, or a pattern such as
    'gate*/*.mp4'; each may be an address of fsspec (s3://bucket/gate). @FILE is a list of sources,
    one a line; @- reads it from standard input.

    Run it again to continue after an interruption, and to add new recordings. `taidpt archive
    retag` asks the result for other tags.
    """
    from taidpt.runtime.archive.job import run_archive
    from taidpt.runtime.archive.request import ArchiveJob
    from taidpt.runtime.tag.request import job_from_options

    run_archive(
        ArchiveJob(
            job_from_options(bundle, sources, options),
            output,
            features=options["features"],
            workers=options["workers"],
            deadline_s=options["deadline"],
            shard_clips=options["shard_clips"],
            retry_errors=options["retry_errors"],
            ray=options["ray"],
        )
    )


@click.command()
@click.argument("folder", type=FILE, metavar="DIR")
@option("--bank", "Made with the archive's model.", required=True)
@option("--output", "A folder of parquet tables.", required=True)
def archive_retag(folder: str, bank: str, output: str) -> None:
    """Ask an archive for other tags, from its stored features.

    DIR is an archive that was tagged with --features. No video is decoded, and the bundle is not
    needed.
    """
    from taidpt.runtime.archive.retag import retag

    retag(folder, bank, output)


@click.command()
@click.argument("folder", type=FILE, metavar="DIR")
@click.option(
    "--sidecar",
    type=click.Choice(NAMINGS),
    default="full",
    help="Name of a sidecar. full: IMG.jpg.xmp; stem: IMG.xmp, for raw files in Lightroom.",
)
@click.option("--remove", is_flag=True, help="Remove what this command has written.")
@option("--dry-run")
def archive_write_tags(folder: str, **options: Any) -> None:
    """Write an archive's tags into XMP sidecars, for photo libraries.

    DIR is an archive. Beside each of its pictures and videos a sidecar gets the tags as keywords,
    which digiKam, darktable, immich and Lightroom read. The pictures are not touched, and keywords
    of others in a sidecar stay.
    """
    from taidpt.runtime.sidecars.write_tags import write_tags

    write_tags(folder, options["sidecar"], options["remove"], options["dry_run"])


@click.command()
@click.argument("bundle", type=FILE)
@option("--output", "A model repository.", required=True)
@click.option("--name", metavar="MODEL", show_default="the bundle's", help="Name of the model.")
@option("--batch", default=8)
@click.option(
    "--instances", type=AT_LEAST_ONE, default=1, help="Copies of the model on each device."
)
@_DEVICE
@option("--threads")
@click.option(
    "--plan", is_flag=True, help="Give the server the bundle's TensorRT engines, not ONNX."
)
@option("--trust-engine")
def export_triton(bundle: str, output: str, **options: Any) -> None:
    """Write a model repository of Triton Inference Server.

    The server then tags frames of many cameras; `Tagger.load("triton://HOST:8001/MODEL")` is the
    tagger beside a camera.
    """
    from taidpt.runtime.triton_server.repository import RepositoryOptions, write_repository

    write_repository(bundle, output, RepositoryOptions(**options))

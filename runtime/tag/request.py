"""What one `taidpt tag` is asked to do, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.stream.stream import StreamSettings

__all__ = ["Outputs", "TagJob", "job_from_options", "parse_roi"]

T = TypeVar("T")
# fmt: off
_OUTPUTS = (
    "jsonl", "events", "csv", "vtt", "srt", "overlay", "report", "save_frames", "webhook", "mqtt",
)
# fmt: on


@dataclass(frozen=True)
class Outputs:
    """Where results go: a file, a folder or an address each; "-" is standard output.

    Without any of them, tags are printed for a person.
    """

    jsonl: str | None = None
    events: str | None = None
    csv: str | None = None
    vtt: str | None = None
    srt: str | None = None
    overlay: str | None = None
    report: str | None = None
    save_frames: str | None = None
    webhook: str | None = None
    mqtt: str | None = None
    heatmap: str | None = None
    show_off: bool = False
    top: int | None = None

    @property
    def need_timeline(self) -> bool:
        """Whether an output is written from the whole timeline."""
        return any(name is not None for name in (self.vtt, self.srt, self.report))

    @property
    def targets(self) -> dict[str, str]:
        """Output name → file or address, of the outputs that are asked for."""
        return {name: getattr(self, name) for name in _OUTPUTS if getattr(self, name)}


@dataclass(frozen=True)
class TagJob:
    """Everything that one `taidpt tag` is asked to do."""

    bundle: str
    sources: tuple[str, ...]
    outputs: Outputs = field(default_factory=Outputs)
    backend: BackendOptions = field(default_factory=BackendOptions)
    source: SourceOptions = field(default_factory=SourceOptions)
    stream: StreamSettings = field(default_factory=StreamSettings)
    threshold: float | None = None
    resize: str = "exact"
    profile: bool = False
    verbose: bool = False
    state: str | None = None
    bank: str | None = None
    watch_bank: bool = False


def parse_roi(text: str | None) -> tuple[int, int, int, int] | None:
    """`x,y,width,height` as numbers, in pixels.

    Raises:
        InputError: the text is not four whole numbers.
    """
    if text is None:
        return None
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--roi should be x,y,width,height in pixels, got {text!r}") from None
    return x, y, width, height


def job_from_options(bundle: str, sources: tuple[str, ...], options: Mapping[str, Any]) -> TagJob:
    """A job from the command line's options; other commands have only some of them."""
    seconds = {f"{name}_s": options[name] for name in ("smoothing", "min_on", "min_off")}
    values = {**options, **seconds, "roi": parse_roi(options["roi"])}

    def made(kind: type[T], **known: Any) -> T:
        names = {field.name for field in fields(kind)} & values.keys()  # type: ignore[arg-type]
        return kind(**known, **{name: values[name] for name in names})

    return made(
        TagJob,
        bundle=bundle,
        sources=sources,
        outputs=made(Outputs),
        backend=made(BackendOptions),
        source=made(SourceOptions),
        stream=made(StreamSettings),
    )

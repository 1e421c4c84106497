"""The whole export as one function: tuned prompts or a class bank in, a bundle out."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from taidpt import __version__
from taidpt.clip.model import ClipModel, load_clip
from taidpt.encoders.local_branch import ImageEncoder, image_encoder
from taidpt.encoders.picture_input import PictureInput
from taidpt.encoders.views import plan_view, view_encoder
from taidpt.export.classes.background import background_rows
from taidpt.export.classes.bake import bake
from taidpt.export.classes.banked_classes import Classes, load_classes
from taidpt.export.graph.encoder import (
    DEFAULT_OPSET,
    clean_encoder,
    write_encoder,
)
from taidpt.export.graph.head import append_head, graph_info
from taidpt.export.graph.large_weights import return_memory
from taidpt.export.graph.onnx_files import describe_opset, one_line_on_disk, save_graph
from taidpt.export.graph.resize import FrameInput, prepend_resize
from taidpt.export.parity.centred_cosine import BOUND, EXPORT_BOUND, ExportResult, Sides, compare
from taidpt.export.parity.graph_outputs import crop_spec, encoder_pixels, graph_outputs
from taidpt.export.parity.reference_pictures import (
    Picture,
    camera_frames,
    folder_pictures,
    generated_pictures,
    heldout_pictures,
    rgb_of,
)
from taidpt.export.parity.stored_answers import EXPECTATIONS_FILE, StoredAnswers
from taidpt.export.parity.torch_reference import TorchReference
from taidpt.progress import Progress, SilentProgress
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import (
    BANK_FILE,
    MODEL_FILE,
    PARITY_FILE,
    BundleWriter,
)
from taidpt.runtime.bundle.manifest import InputSpec, Manifest, ModelInfo, Scoring, TagEntry
from taidpt.runtime.bundle.view import ViewRequest
from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.atomic import sha256_of
from taidpt.runtime.top_k import floor_scores

__all__ = [
    "ExportOptions",
    "ExportResult",
    "export_bundle",
    "write_bundle",
]

_PACKAGES = ("torch", "open_clip_torch", "onnx", "onnxscript", "onnxslim", "onnxruntime", "numpy")


@dataclass(frozen=True)
class ExportOptions:
    """How to export; None takes the prompts' own setting.

    Attributes:
        score_transform: "none", "center" or "log_softmax" over a picture's tags.
        merge_weight: share of the local score, 0 to 1.
        temperature: sharpness of the local weights over patches.
        opset: 17 to 20.
        bank: "constant" in the graph, or its "input".
        top_k: number of best scores to return for each frame; None for all.
        frame: camera frames whose colour conversion and resize go into the graph; None leaves
            both outside.
        view: which part of a frame the model sees, as `ViewRequest.parse` reads it. The command
            and the Python call begin with "auto".
        local_branch: "value" or "self"; see `image_encoder`.
        images: a folder of the user's own pictures for the parity gate.
        background: let common nouns compete with the tags in the score transform "center".
        pretrained: another source of the same weights (same hash).
        parity_bound: least centred cosine with PyTorch, 0.999 or more.
        force: write the bundle even when parity fails; parity.json records it.
    """

    score_transform: str | None = None
    merge_weight: float | None = None
    temperature: float | None = None
    opset: int = DEFAULT_OPSET
    bank: str = "constant"
    top_k: int | None = None
    frame: FrameInput | None = None
    view: str = "crop"
    local_branch: str | None = None
    images: Path | None = None
    background: bool = False
    pretrained: str | None = None
    parity_bound: float = EXPORT_BOUND
    force: bool = False

    def __post_init__(self) -> None:
        describe_opset(self.opset)
        ViewRequest.parse(self.view)
        if not BOUND <= self.parity_bound <= 1:
            raise InputError(f"parity bound {self.parity_bound}: expected from {BOUND} to 1")


def export_bundle(
    prompts: str | Path | Classes,
    out: str | Path,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Turn tuned prompts into a portable bundle.

    Args:
        prompts: the file that `taidpt tune` wrote or a class bank's, or either in memory.
        out: the bundle's folder; an existing bundle is replaced in one step.
        options: defaults are the prompts' own.
        progress: told about each stage.
    Raises:
        InputError: an input is missing, damaged, or does not fit.
        ParityError: the outputs differ from PyTorch's; nothing was written.
    """
    options, progress = options or ExportOptions(), progress or SilentProgress()
    source = None
    if isinstance(prompts, str | Path):
        path = Path(prompts)
        prompts, source = load_classes(path), {"name": path.name, "sha256": sha256_of(path)}
    classes = prompts

    def load() -> ClipModel:
        progress.start("Loading the model", 1)
        pretrained = options.pretrained or str(classes.model["pretrained"])
        clip = load_clip(str(classes.model["name"]), pretrained)
        if classes.picture is not None:
            clip = classes.picture.model(clip)
        progress.advance()
        return clip

    return write_bundle(classes, load, out, options, progress, source)


def write_bundle(
    prompts: Classes,
    clip: ClipModel | Callable[[], ClipModel],
    out: str | Path,
    options: ExportOptions,
    progress: Progress,
    source: dict[str, str] | None = None,
) -> ExportResult:
    """`export_bundle` for prompts in memory, and a model there or the function that loads it.

    A model that the function returns is released part by part, as each is large.
    """
    own = folder_pictures(options.images) if options.images else []
    scoring = _scoring(prompts, options)
    clip = clip if isinstance(clip, ClipModel) else clip()
    with one_line_on_disk(out), BundleWriter(out) as writer:
        progress.start("Baking class embeddings", 1)
        bank = bake(prompts, clip).with_thresholds_for(scoring.transform)
        nouns = background_rows(prompts, clip, scoring) if options.background else None
        bank = dataclasses.replace(bank, background=nouns)
        progress.advance()

        if options.local_branch is not None:
            clip = dataclasses.replace(clip, local_branch=options.local_branch)
        plain = image_encoder(clip)
        spec = _input_spec(clip, plain, options, prompts.picture)
        crop = crop_spec(spec)
        encoder, model = view_encoder(plain, spec), _model_info(clip, plain, spec)
        del clip, plain  # and with them the text tower
        return_memory()

        progress.start("Running PyTorch", 1)
        pictures = [*generated_pictures(min(spec.crop_hw)), *heldout_pictures(), *own]
        pictures = camera_frames(pictures, spec)
        pixels = [picture.pixels for picture in pictures]
        reference = TorchReference(encoder, crop, bank, scoring)
        crops = encoder_pixels(spec, pixels)
        both_crops = reference.pixels([rgb_of(frame, spec) for frame in pixels]), crops
        expected = reference.outputs(crops)
        expected["scores"] = floor_scores(expected["scores"], options.top_k)
        progress.advance()

        progress.start("Exporting the image encoder", 1)
        with TemporaryDirectory(dir=writer.folder) as work:
            path = write_encoder(encoder, crop, options.opset, Path(work))
            del encoder, reference
            return_memory()
            graph = clean_encoder(path, crop)
            if spec.baked_resize is not None:
                graph = prepend_resize(graph, spec)
            graph = append_head(graph, bank, scoring, options.bank, options.top_k)
            save_graph(graph, writer.path(MODEL_FILE), path.parent)
            del graph
        bank.save(writer.path(BANK_FILE))
        progress.advance()

        progress.start("Comparing with PyTorch", 1)
        return_memory()
        found = graph_outputs(writer.folder / MODEL_FILE, spec, pixels, bank)
        parity = compare(expected, found, _sides(pictures), options.parity_bound, both_crops)
        progress.advance()
        if not options.force:
            parity.require()
        stored = StoredAnswers.choose(pictures, expected)
        writer.write(EXPECTATIONS_FILE, stored.to_bytes())
        writer.write(PARITY_FILE, parity.to_bytes())

        manifest = Manifest(
            tags=_tag_entries(prompts, bank),
            model=model,
            scoring=scoring,
            input=spec,
            graph=graph_info(options.opset, options.bank, options.top_k),
            provenance=_provenance(prompts, options, source)
            | {"background": list(nouns.names) if nouns else []},
        )
        return ExportResult(writer.target, writer.commit(manifest), parity)


def _scoring(prompts: Classes, options: ExportOptions) -> Scoring:
    changes = {
        "transform": options.score_transform,
        "merge_weight": options.merge_weight,
        "temperature": options.temperature,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(prompts.scoring, **given)  # type: ignore[arg-type]  # it checks


def _sides(pictures: Sequence[Picture]) -> Sides:
    return Sides(
        f"PyTorch {metadata.version('torch')} on the runtime's pixels",
        f"onnxruntime {metadata.version('onnxruntime')} (CPUExecutionProvider)",
        tuple(picture.name for picture in pictures),
    )


def _input_spec(
    clip: ClipModel, encoder: ImageEncoder, options: ExportOptions, own: PictureInput | None
) -> InputSpec:
    """The manifest's input; prompts with an input of their own keep it under "auto"."""
    frame, request = options.frame, ViewRequest.parse(options.view)
    if request.kind == "auto":
        request = request.settle(encoder.any_size) if own is None else ViewRequest(own.resize)
    aspect = request.aspect(None if frame is None else (frame.height, frame.width))
    view, size = plan_view(request, encoder, clip.image_size, aspect)
    spec = InputSpec(*size, clip.mean, clip.std, view=view)
    return spec if frame is None else frame.spec(spec)


def _tag_entries(prompts: Classes, bank: ClassBank) -> tuple[TagEntry, ...]:
    learned = zip(prompts.tags, bank.thresholds, bank.probabilities, strict=True)
    return tuple(
        TagEntry(tag.name, threshold, tag.synonyms, probability)
        for tag, threshold, probability in learned
    )


def _model_info(clip: ClipModel, encoder: ImageEncoder, spec: InputSpec) -> ModelInfo:
    tiles = spec.view.tiles
    return ModelInfo(
        name=clip.name,
        pretrained=clip.pretrained,
        weights_sha256=clip.weights_sha256,
        licence=clip.licence,
        embed_dim=clip.embed_dim,
        grid=encoder.grid(*(spec.crop_hw if tiles is None else (tiles.side, tiles.side))),
        local_branch=encoder.local_branch,
    )


def _provenance(
    prompts: Classes, options: ExportOptions, source: dict[str, str] | None
) -> dict[str, Any]:
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "taidpt": __version__,
        "prompts": source,
        "tuning": dict(prompts.provenance),
        "precision": "fp32",
        "forced": options.force,
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }

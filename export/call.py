"""The Python calls of this room: the options of `taidpt-export` as keyword arguments.

`taidpt.export` is the room, so the calls are `taidpt.export_bundle` and `taidpt.add_engine`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from taidpt.export.engines import in_bundle
from taidpt.export.engines.in_bundle import EngineResult
from taidpt.export.graph.resize import FrameInput
from taidpt.export.parity.centred_cosine import EXPORT_BOUND, ExportResult
from taidpt.export.precision.request import EngineOptions, EngineRequest
from taidpt.progress import open_progress
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages

if TYPE_CHECKING:
    from taidpt.prompts.prompts_file import TunedPrompts

__all__ = ["add_engine", "export_bundle"]

StrPath = str | os.PathLike[str]


@optional_packages("taidpt.export_bundle", "export")
def export_bundle(
    prompts: StrPath | TunedPrompts | ClassBank,
    output: StrPath | None = None,
    *,
    score_transform: str | None = None,
    merge_weight: float | None = None,
    temperature: float | None = None,
    opset: int = 18,
    swappable_bank: bool = False,
    top_k: int | None = None,
    view: str = "auto",
    local_branch: str | None = None,
    frame_size: tuple[int, int] | None = None,
    frame_format: str = "rgb",
    frame_matrix: str = "bt709",
    frame_range: str = "limited",
    images: StrPath | None = None,
    background: bool = False,
    pretrained: str | None = None,
    parity_bound: float = EXPORT_BOUND,
    force: bool = False,
    progress: bool = False,
) -> ExportResult:
    """Turn tuned prompts or a class bank into a bundle that runs without PyTorch.

    Args:
        prompts: what `taidpt.tune` returned, a class bank, or the path of either.
        output: the bundle's folder, NAME.taidpt; None takes the name of the prompts' file. A
            bundle that is already there is replaced in one step.
        score_transform: "none", "center" or "log_softmax" over the tags of a picture; None for
            this and the next two takes what the prompts say.
        merge_weight: share of the local score, 0 to 1.
        temperature: sharpness of the local weights over patches.
        opset: ONNX opset, 17 to 20.
        swappable_bank: make the class bank an input of the graph, so that tags can change while the
            tagger runs; else it is a constant.
        top_k: return only this many of a frame's scores, the best; None for all.
        view: which part of a frame the model sees: "crop", "whole", "wide", "wide:4x3", "tiles:N";
            "auto" is "wide" where the tower takes rectangles as it is, else "crop".
        local_branch: what a patch keeps of the last attention: its own "value", or "self" for
            self-self attention (ViTs); None takes what the prompts say, else "value".
        frame_size: height and width of the camera's frames, in pixels, whose resize goes into the
            graph; None leaves the resize to the runtime.
        frame_format, frame_matrix, frame_range: with `frame_size`: "rgb" or "nv12"; of NV12
            "bt601" or "bt709", "limited" or "full".
        images: a folder of your own pictures for the parity check.
        background: let common nouns compete with the tags in the score transform "center".
        pretrained: the weights, where they are elsewhere than the prompts say.
        parity_bound: least centred cosine with PyTorch on equal pixels, 0.999 to 1.
        force: write the bundle even when the parity check fails.
        progress: show the progress on standard error.
    Raises:
        InputError: an argument or file is wrong.
        ParityError: the bundle would not give PyTorch's results; nothing was written.
        MissingDependencyError: an optional package is not installed.
    """
    from taidpt.export import exporter
    from taidpt.export.classes.banked_classes import BankedClasses

    if output is None:
        if not isinstance(prompts, str | os.PathLike):
            raise InputError("prompts in memory have no name: give the bundle's output folder too")
        output = Path(prompts).with_suffix(".taidpt")
    options = exporter.ExportOptions(
        score_transform=score_transform,
        merge_weight=merge_weight,
        temperature=temperature,
        opset=opset,
        bank="input" if swappable_bank else "constant",
        top_k=top_k,
        view=view,
        local_branch=local_branch,
        frame=None
        if frame_size is None
        else FrameInput(*frame_size, format=frame_format, matrix=frame_matrix, range=frame_range),
        images=None if images is None else Path(images),
        background=background,
        pretrained=pretrained,
        parity_bound=parity_bound,
        force=force,
    )
    if isinstance(prompts, str | os.PathLike):
        prompts = Path(prompts)
    with open_progress(progress) as shown:
        classes = BankedClasses(prompts) if isinstance(prompts, ClassBank) else prompts
        return exporter.export_bundle(classes, Path(output), options, shown)


@optional_packages("taidpt.add_engine")
def add_engine(
    bundle: StrPath,
    precision: str = "fp16",
    *,
    batches: tuple[int, int, int] = (1, 1, 8),
    workspace: int | None = None,
    flavour: str = "auto",
    target: str | None = None,
    dla: int | None = None,
    version_compatible: bool = False,
    hardware_compatible: bool = False,
    frames: StrPath | None = None,
    images: StrPath | None = None,
    truth: StrPath | None = None,
    max_map_drop: float | None = None,
    force: bool = False,
    progress: bool = False,
) -> EngineResult:
    """Give a bundle a TensorRT engine of a precision; needs no PyTorch.

    Args:
        bundle: the folder NAME.taidpt.
        precision: "fp32", "fp16", "bf16", "int8" or "fp8".
        batches: least, usual and largest batch.
        workspace: scratch memory of the builder, in bytes; None takes half of what is free.
        flavour: "auto", "tensorrt" or "tensorrt-rtx".
        target: GPU architecture, such as "sm_86" (TensorRT-RTX only); None is this machine's GPU.
        dla: core of the deep learning accelerator (experimental); None uses the GPU.
        version_compatible, hardware_compatible: engines for later TensorRT versions or other GPUs
            (experimental).
        frames: unlabelled pictures or a video of the scene, for int8 and fp8.
        images: your own pictures for the accuracy check.
        truth: a JSON file with all tags of the pictures of `images`.
        max_map_drop: points of mAP that the precision may lose, with `truth`.
        force: keep a graph that fails its check.
        progress: show the progress on standard error.
    Raises:
        InputError: an argument or file is wrong.
        ParityError: the precision changes the results too much.
        EngineNotBuiltError: no TensorRT or GPU here; the bundle has everything else.
    """
    options = EngineOptions(
        precision, batches, workspace, flavour, target, dla, version_compatible, hardware_compatible
    )
    request = EngineRequest(
        options,
        calibrate=None if frames is None else Path(frames),
        force=force,
        labels=None if truth is None else Path(truth),
        images=None if images is None else Path(images),
        max_map_drop=max_map_drop,
    )
    with open_progress(progress) as shown:
        return in_bundle.add_engine(Path(bundle), request, shown)

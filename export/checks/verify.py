"""`taidpt verify`: every way to run a bundle, side by side, on real pictures.

The reference is PyTorch where it is installed and the weights can be loaded, else the outputs of
PyTorch that are stored in the bundle. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.export.engines.outputs import engine_outputs
from taidpt.export.parity.centred_cosine import ParityReport, Sides, compare
from taidpt.export.parity.graph_outputs import (
    Arrays,
    Pixels,
    crop_spec,
    encoder_pixels,
    graph_outputs,
)
from taidpt.export.parity.labelled_pictures import LabelledPictures, read_labels
from taidpt.export.parity.reference_pictures import Picture, camera_frames, folder_pictures, rgb_of
from taidpt.export.parity.stored_answers import EXPECTATIONS_FILE, StoredAnswers
from taidpt.export.precision.half import PRECISIONS, RUNNABLE_ON_CPU, bound_of, runs_literally
from taidpt.runtime.backends.engine_files import TITLES, list_engines
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import (
    BackendError,
    InputError,
    MissingDependencyError,
    ParityError,
)
from taidpt.runtime.top_k import floor_scores

__all__ = ["Agreement", "VerifyOptions", "VerifyReport", "verify"]

_TOP = 5  # tags compared by rank, as many as people read of a frame
# Points of mAP that may be lost, by precision: rounding alone moves mAP by less than 0.1 point, and
# half a point is what the project accepts for a graph of a quarter of the size.
MAP_DROPS = {"fp32": 0.1, "fp16": 0.1, "bf16": 0.5, "int8": 0.5, "fp8": 0.5}


@dataclass(frozen=True)
class VerifyOptions:
    """What to compare on.

    Attributes:
        images: the user's pictures; without them the stored ones are used.
        labels: a JSON file {"picture.jpg": ["dog", …], …} for ΔmAP, names as in the folder.
        torch: "auto" uses PyTorch where it is there, "no" never, "yes" must.
        trust_engine: run engines that this machine has no record of.
    """

    images: Path | None = None
    labels: Path | None = None
    torch: str = "auto"
    trust_engine: bool = False


@dataclass(frozen=True)
class Agreement:
    """One candidate compared with the reference.

    Attributes:
        name: what ran, as "model.fp16.onnx on onnxruntime 1.23.2".
        precision: of the graph.
        report: centred cosines; None where it was not run here or failed.
        reason: why it was not run, or how it failed.
        broke: whether it can run here, and failed.
        top5: share of the five best tags in common.
        on: share of on/off decisions in common.
        map_drop: points of mAP lost, or None without labels.
    """

    name: str
    precision: str
    report: ParityReport | None
    reason: str = ""
    top5: float = float("nan")
    on: float = float("nan")
    map_drop: float | None = None
    broke: bool = False

    @property
    def passed(self) -> bool:
        """Whether all bounds hold. A candidate that was not run here has not failed."""
        if self.report is None:
            return not self.broke
        lost = self.map_drop is not None and self.map_drop > MAP_DROPS[self.precision]
        return self.report.passed and not lost

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        if self.report is None:
            why = {"passed": False, "broke": self.reason} if self.broke else {}
            why = why or {"not_run_here": self.reason}
            return {"name": self.name, "precision": self.precision, **why}
        return {
            "name": self.name,
            "precision": self.precision,
            "passed": self.passed,
            "top5_agreement": self.top5,
            "on_agreement": self.on,
            "map_drop": self.map_drop,
            "parity": self.report.to_json(),
        }


@dataclass(frozen=True)
class VerifyReport:
    """All candidates of a bundle."""

    bundle: str
    truth: str
    pictures: int
    candidates: tuple[Agreement, ...] = field(default=())

    def require(self) -> None:
        """Raise if a candidate that ran is out of bounds, or failed.

        Raises:
            ParityError: names them.
        """
        failed = [candidate.name for candidate in self.candidates if not candidate.passed]
        if failed:
            raise ParityError(
                f"{self.bundle}: {', '.join(failed)} disagrees with {self.truth} beyond its "
                "bounds, or broke"
            )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "schema": 1,
            "kind": "taidpt-verify",
            "bundle": self.bundle,
            "truth": self.truth,
            "pictures": self.pictures,
            "passed": all(candidate.passed for candidate in self.candidates),
            "candidates": [candidate.to_json() for candidate in self.candidates],
        }


def verify(path: Path, options: VerifyOptions) -> VerifyReport:
    """Check a bundle's hashes, then compare everything in it that can run here.

    Raises:
        BundleError: a file differs from the manifest.
        InputError: pictures or labels cannot be used, or PyTorch was demanded and is not there.
    """
    bundle = Bundle.load(path).require_whole()
    truth = _truth(bundle, options)
    labels = read_labels(options.labels, truth.pictures, bundle.names) if options.labels else None
    pixels = [picture.pixels for picture in truth.pictures]
    agreements = []
    for candidate in _candidates(bundle, options):
        outputs = _outputs(candidate, pixels)
        if isinstance(outputs, Agreement):
            agreements.append(outputs)
            continue
        sides = Sides(truth.name, candidate.name, tuple(p.name for p in truth.pictures))
        bound = bound_of(candidate.precision)
        report = compare(truth.outputs, outputs, sides, bound, truth.crops)
        agreements.append(
            _agreement(bundle, candidate.precision, report, (truth.outputs, outputs), labels)
        )
    return VerifyReport(str(path), truth.name, len(pixels), tuple(agreements))


@dataclass(frozen=True)
class _Candidate:
    """A way to run the bundle: name, precision, and the call, or None where it cannot run here."""

    name: str
    precision: str
    run: Callable[[Sequence[Pixels]], Arrays] | None


def _outputs(candidate: _Candidate, pixels: Sequence[Pixels]) -> Arrays | Agreement:
    """Its outputs, or why there are none. A missing TensorRT is no failure."""
    no_outputs = partial(Agreement, candidate.name, candidate.precision, None)
    if candidate.run is None:
        return no_outputs("needs TensorRT")
    try:
        return candidate.run(pixels)
    except (BackendError, MissingDependencyError) as error:
        return no_outputs(str(error))
    except ParityError as error:
        return no_outputs(str(error), broke=True)


def _candidates(bundle: Bundle, options: VerifyOptions) -> Iterator[_Candidate]:
    """The bundle's graphs by precision, then its engines."""
    import onnxruntime

    where = f"onnxruntime {onnxruntime.__version__} (CPU)"
    own = str(bundle.manifest.provenance.get("precision", "fp32"))
    files = {bundle.manifest.graph.file: own}
    files |= {f"model.{precision}.onnx": precision for precision in PRECISIONS}
    for name, precision in files.items():
        if name in bundle.manifest.files:
            run = partial(_run_graph, bundle, name, precision)
            possible = precision in RUNNABLE_ON_CPU
            yield _Candidate(f"{name} on {where}", precision, run if possible else None)
    for engine in list_engines(bundle):
        call = partial(engine_outputs, bundle, engine, trust_engine=options.trust_engine)
        yield _Candidate(f"{engine.name} on {TITLES[engine.flavour]}", engine.precision, call)


def _run_graph(bundle: Bundle, name: str, precision: str, pixels: Sequence[Pixels]) -> Arrays:
    graph, spec = bundle.file(name), bundle.manifest.input
    literal = runs_literally(precision, for_cpu=name == bundle.manifest.graph.file)
    return graph_outputs(graph, spec, pixels, bundle.bank, literal)


@dataclass(frozen=True, eq=False)
class _Truth:
    """The reference: its name, its pictures, and its outputs for them.

    `crops` are open_clip's pixels and the runtime's, to be compared; None without PyTorch.
    """

    name: str
    pictures: Sequence[Picture]
    outputs: Mapping[str, npt.NDArray[Any]]
    crops: tuple[Pixels, Pixels] | None = None


def _truth(bundle: Bundle, options: VerifyOptions) -> _Truth:
    own = folder_pictures(options.images) if options.images else []
    own = camera_frames(own, bundle.manifest.input)
    if own and len(own) < 2:
        raise InputError(f"{options.images}: verify needs at least two pictures, got one")
    if options.torch != "no" and (own or options.torch == "yes"):
        expected = _from_torch(bundle, own, options)
        if expected is not None:
            return expected
    stored = StoredAnswers.load(bundle.file(EXPECTATIONS_FILE))
    if not own:
        return _Truth("PyTorch (stored in the bundle)", stored.pictures, stored.outputs)
    outputs = _run_graph(bundle, bundle.manifest.graph.file, "fp32", [p.pixels for p in own])
    return _Truth("model.onnx (no PyTorch or weights here)", own, outputs)


def _from_torch(bundle: Bundle, own: list[Picture], options: VerifyOptions) -> _Truth | None:
    from importlib.util import find_spec

    if find_spec("torch") is None or find_spec("open_clip") is None:
        if options.torch == "yes":
            raise InputError("--torch yes: PyTorch is not installed: pip install 'taidpt[tune]'")
        return None
    from taidpt.clip.model import load_clip
    from taidpt.encoders.local_branch import image_encoder
    from taidpt.encoders.views import view_encoder
    from taidpt.export.parity.torch_reference import TorchReference

    info = bundle.manifest.model
    try:
        clip = load_clip(info.name, info.pretrained)
    except InputError:
        if options.torch == "yes":
            raise
        return None
    if clip.weights_sha256 != info.weights_sha256:
        raise InputError(
            f"{info.name} {info.pretrained}: other weights than the bundle was made of"
        )
    crop = crop_spec(bundle.manifest.input)
    clip = replace(clip, local_branch=info.local_branch)
    encoder = view_encoder(image_encoder(clip), crop)
    reference = TorchReference(encoder, crop, bundle.bank, bundle.manifest.scoring)
    pictures = own or list(StoredAnswers.load(bundle.file(EXPECTATIONS_FILE)).pictures)
    spec, pixels = bundle.manifest.input, [picture.pixels for picture in pictures]
    crops = encoder_pixels(spec, pixels)
    outputs = reference.outputs(crops)
    outputs["scores"] = floor_scores(outputs["scores"], bundle.manifest.graph.top_k)
    both_crops = reference.pixels([rgb_of(frame, spec) for frame in pixels]), crops
    return _Truth("PyTorch", pictures, outputs, both_crops)


def _agreement(
    bundle: Bundle,
    precision: str,
    report: ParityReport,
    outputs: tuple[Mapping[str, npt.NDArray[Any]], Arrays],
    labels: LabelledPictures | None,
) -> Agreement:
    truth, found = outputs[0]["scores"], outputs[1]["scores"]
    thresholds = np.array([tag.threshold.on for tag in bundle.manifest.tags])
    best = [np.argsort(-scores, axis=1, kind="stable")[:, :_TOP] for scores in (truth, found)]
    common = [len(set(a) & set(b)) / len(a) for a, b in zip(*best, strict=True)]
    drop = None
    if labels is not None:
        drop = labels.percent(truth) - labels.percent(found)
    return Agreement(
        name=report.candidate,
        precision=precision,
        report=report,
        top5=float(np.mean(common)),
        on=float(((truth >= thresholds) == (found >= thresholds)).mean()),
        map_drop=drop,
    )

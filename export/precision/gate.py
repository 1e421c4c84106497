"""The gate of a graph in another precision: PyTorch's stored answers, and mAP where labels are."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taidpt.export.parity.centred_cosine import GATED, ParityReport, compare
from taidpt.export.parity.graph_outputs import Arrays, graph_outputs
from taidpt.export.parity.labelled_pictures import LabelledPictures, read_labels
from taidpt.export.parity.reference_pictures import Picture, camera_frames, folder_pictures
from taidpt.export.parity.stored_answers import EXPECTATIONS_FILE, StoredAnswers
from taidpt.export.precision.half import RUNNABLE_ON_CPU, bound_of, runs_literally
from taidpt.export.precision.request import CPU, EngineRequest
from taidpt.runtime.bundle.bundle import MODEL_FILE, Bundle
from taidpt.runtime.errors import InputError, ParityError

if TYPE_CHECKING:
    import onnx

__all__ = ["PrecisionGate", "gate_for"]


class PrecisionGate:
    """Judges graphs of one precision against what PyTorch gave when the bundle was exported."""

    def __init__(
        self,
        bundle: Bundle,
        precision: str,
        labelled: LabelledPictures | None = None,
        max_map_drop: float | None = None,
        own: Sequence[Picture] = (),
        for_cpu: bool = False,
    ) -> None:
        """Prepare.

        Args:
            bundle: holds the pictures and the answers.
            precision: decides the bound of the centred cosines.
            labelled: pictures with known tags; mAP is compared with that of the bundle's graph.
            max_map_drop: points of mAP that may be lost.
            own: the user's pictures as the graph's frames; the bundle's graph is the reference.
            for_cpu: whether ONNX Runtime on a CPU is what runs the graph in the end.
        """
        self.bundle = bundle
        self.precision = precision
        self.labelled = labelled
        self.max_map_drop = max_map_drop
        self._own = own if self.can_run else ()
        self._literal = runs_literally(precision, for_cpu)
        self._stored = StoredAnswers.load(bundle.file(EXPECTATIONS_FILE))

    @property
    def origin(self) -> dict[str, Any]:
        """The user's pictures of the gate: a graph judged on other ones is made again."""
        if not self._own:
            return {}
        digest = hashlib.sha256()
        for picture in self._own:
            digest.update(picture.pixels.tobytes())
        return {"images_sha256": digest.hexdigest(), "images": len(self._own)}

    @property
    def can_run(self) -> bool:
        """Whether ONNX Runtime runs this precision on a CPU."""
        return self.precision in RUNNABLE_ON_CPU

    def report(
        self, graph: onnx.ModelProto | Path, notes: Mapping[str, Any] | None = None
    ) -> ParityReport:
        """A whole graph against PyTorch's stored answers; "not run here" where nothing can."""
        import onnxruntime

        notes = notes or {}
        where = f"onnxruntime {onnxruntime.__version__} (CPUExecutionProvider), {self.precision}"
        reference = "PyTorch, stored in the bundle"
        if self._own:
            reference += f" and its own graph on {len(self._own)} pictures of --images"
        sides = self._expected.sides(where, reference)
        if not self.can_run:
            return ParityReport.not_run(sides, {**notes, "reason": "not run here: needs TensorRT"})
        outputs = self._run(graph, self._expected.pictures)
        report = compare(self._expected.outputs, outputs, sides, bound_of(self.precision))
        return dataclasses.replace(report, notes={**notes, "verified": True})

    def map_drop(self, graph: onnx.ModelProto | Path) -> float | None:
        """Points of mAP that a whole graph loses against the bundle's own; None without labels."""
        if self.labelled is None or not self.can_run:
            return None
        return self._full_map - self._map(graph)

    def holds(self, graph: onnx.ModelProto | Path) -> bool:
        """Whether all bounds hold."""
        return self.report(graph).passed and not self._loses(self.map_drop(graph))

    def loss(self, graph: onnx.ModelProto | Path) -> float:
        """One minus the mean centred cosine of the worst output."""
        report = self.report(graph)
        return 1.0 - min(report.head(name).mean for name in GATED)

    def judge(
        self, graph: Path, notes: Mapping[str, Any] | None = None, force: bool = False
    ) -> ParityReport:
        """The report of a stored graph, with its loss of mAP in the notes.

        Raises:
            ParityError: a bound does not hold, and `force` is False.
        """
        drop = self.map_drop(graph)
        report = self.report(
            graph, {**(notes or {}), **({} if drop is None else {"map_drop": drop})}
        )
        if force:
            return report
        try:
            report.require()
            if self._loses(drop):
                raise ParityError(
                    f"{self.precision} loses {drop:.2f} points of mAP on the labelled pictures, "
                    f"at most {self.max_map_drop} may be lost"
                )
        except ParityError as error:
            raise ParityError(f"{error}; nothing was written, --force writes it anyway") from None
        return report

    def _loses(self, drop: float | None) -> bool:
        return drop is not None and self.max_map_drop is not None and drop > self.max_map_drop

    @functools.cached_property
    def _full_map(self) -> float:
        return self._map(self.bundle.file(MODEL_FILE))

    def _map(self, graph: onnx.ModelProto | Path) -> float:
        assert self.labelled is not None
        return self.labelled.percent(self._run(graph, self.labelled.pictures)["scores"])

    @functools.cached_property
    def _expected(self) -> StoredAnswers:
        """The stored answers, and those of the bundle's own graph on the user's pictures."""
        if not self._own:
            return self._stored
        pixels = [picture.pixels for picture in self._own]
        graph, spec = self.bundle.file(MODEL_FILE), self.bundle.manifest.input
        outputs = graph_outputs(graph, spec, pixels, self.bundle.bank)
        named = [dataclasses.replace(p, name=f"own/{p.name}") for p in self._own]
        both = {
            name: np.concatenate([values, outputs[name]])
            for name, values in self._stored.outputs.items()
            if name in outputs
        }
        return StoredAnswers((*self._stored.pictures, *named), both)

    def _run(self, graph: onnx.ModelProto | Path, pictures: Sequence[Picture]) -> Arrays:
        return graph_outputs(
            graph,
            self.bundle.manifest.input,
            [picture.pixels for picture in pictures],
            self.bundle.bank,
            literal=self._literal,
        )


def gate_for(bundle: Bundle, request: EngineRequest) -> PrecisionGate:
    """The gate that a request asks for.

    Raises:
        InputError: its pictures or labels cannot be read.
    """
    spec = bundle.manifest.input
    own = () if request.images is None else camera_frames(folder_pictures(request.images), spec)
    labelled = None
    if request.labels is not None:
        folder = request.images or request.calibrate
        if folder is None or not folder.is_dir():
            raise InputError(f"--truth {request.labels}: where are its pictures? --images DIR")
        pictures = camera_frames(folder_pictures(folder, limit=None), spec)
        labelled = read_labels(request.labels, pictures, bundle.names)
    options = request.options
    return PrecisionGate(
        bundle, options.precision, labelled, request.max_map_drop, own, options.flavour == CPU
    )

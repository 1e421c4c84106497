"""The gate of a graph in another precision: PyTorch's stored answers, and mAP where labels are."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taidpt.export.parity.centred_cosine import GATED, ParityReport, Sides, compare
from taidpt.export.parity.graph_outputs import Arrays, graph_outputs
from taidpt.export.parity.labelled_pictures import Labelled
from taidpt.export.parity.reference_pictures import Picture
from taidpt.export.parity.stored_answers import EXPECTATIONS_FILE, Expectations
from taidpt.export.precision.half import RUN_LITERALLY, RUNNABLE_ON_CPU, bound_of
from taidpt.runtime.bundle.bundle import MODEL_FILE, Bundle
from taidpt.runtime.errors import ParityError

if TYPE_CHECKING:
    import onnx

__all__ = ["PrecisionGate"]


class PrecisionGate:
    """Judges graphs of one precision against what PyTorch gave when the bundle was exported."""

    def __init__(
        self,
        bundle: Bundle,
        precision: str,
        labelled: Labelled | None = None,
        max_map_drop: float | None = None,
        own: Sequence[Picture] = (),
    ) -> None:
        """Prepare.

        Args:
            bundle: holds the pictures and the answers.
            precision: decides the bound of the centred cosines.
            labelled: pictures with known tags; mAP is compared with that of the bundle's graph.
            max_map_drop: points of mAP that may be lost.
            own: the user's pictures as the graph's frames; the bundle's graph is the truth there.
        """
        self.bundle = bundle
        self.precision = precision
        self.labelled = labelled
        self.max_map_drop = max_map_drop
        self._own = own if self.can_run else ()
        self._stored = Expectations.load(bundle.file(EXPECTATIONS_FILE))
        self._full_map: float | None = None

    @property
    def origin(self) -> dict[str, Any]:
        """Which pictures of the user judge: a graph that others judged is made anew."""
        if not self._own:
            return {}
        digest = hashlib.sha256()
        for picture in self._own:
            digest.update(picture.pixels.tobytes())
        return {"images_sha256": digest.hexdigest(), "images": len(self._own)}

    @property
    def can_run(self) -> bool:
        """Whether anything here can run this precision."""
        return self.precision in RUNNABLE_ON_CPU

    def report(
        self, graph: onnx.ModelProto | Path, notes: Mapping[str, Any] | None = None
    ) -> ParityReport:
        """A whole graph against PyTorch's stored answers; "not run here" where nothing can."""
        import onnxruntime

        names = tuple(picture.name for picture in self._expected.pictures)
        where = f"onnxruntime {onnxruntime.__version__} (CPUExecutionProvider), {self.precision}"
        truth = "PyTorch, stored in the bundle"
        if self._own:
            truth += f" and its own graph on {len(self._own)} pictures of --images"
        sides = Sides(truth, where, names)
        if not self.can_run:
            told = {**(notes or {}), "verified": False, "reason": "not run here: needs TensorRT"}
            return ParityReport(sides.reference, sides.candidate, names, (), 0.0, (), told)
        found = self._run(graph, self._expected.pictures)
        report = compare(self._expected.outputs, found, sides, bound_of(self.precision))
        return dataclasses.replace(report, notes={**(notes or {}), "verified": True})

    def map_drop(self, graph: onnx.ModelProto | Path) -> float | None:
        """Points of mAP that a whole graph loses against the bundle's own; None without labels."""
        labelled = self.labelled
        if labelled is None or not self.can_run:
            return None
        if self._full_map is None:
            self._full_map = self._map(self.bundle.file(MODEL_FILE), labelled)
        return self._full_map - self._map(graph, labelled)

    def holds(self, graph: onnx.ModelProto | Path) -> bool:
        """Whether all bounds hold."""
        return self.report(graph).passed and not self._loses(self.map_drop(graph))

    def loss(self, graph: onnx.ModelProto | Path) -> float:
        """One less the mean centred cosine of the worst output."""
        report = self.report(graph)
        return 1.0 - min(report.head(name).mean for name in GATED)

    def require(self, report: ParityReport, drop: float | None) -> None:
        """Go on only when all bounds hold.

        Raises:
            ParityError: naming the one that does not, and what may be done.
        """
        try:
            report.require()
        except ParityError as error:
            raise ParityError(f"{error}; nothing was written, --force writes it anyway") from None
        if self._loses(drop):
            raise ParityError(
                f"{self.precision} loses {drop:.2f} points of mAP on the labelled pictures, "
                f"at most {self.max_map_drop} may be lost; nothing was written, --force writes it "
                "anyway"
            )

    def _loses(self, drop: float | None) -> bool:
        return drop is not None and self.max_map_drop is not None and drop > self.max_map_drop

    def _map(self, graph: onnx.ModelProto | Path, labelled: Labelled) -> float:
        return labelled.percent(self._run(graph, labelled.pictures)["scores"])

    @functools.cached_property
    def _expected(self) -> Expectations:
        """The stored answers, and the bundle's own graph's on the user's pictures."""
        if not self._own:
            return self._stored
        graph, spec = self.bundle.file(MODEL_FILE), self.bundle.manifest.input
        pixels = [picture.pixels for picture in self._own]
        return _joined(
            self._stored, self._own, graph_outputs(graph, spec, pixels, self.bundle.bank)
        )

    def _run(self, graph: onnx.ModelProto | Path, pictures: Sequence[Picture]) -> Arrays:
        return graph_outputs(
            graph,
            self.bundle.manifest.input,
            [picture.pixels for picture in pictures],
            self.bundle.bank,
            literal=self.precision in RUN_LITERALLY,
        )


def _joined(stored: Expectations, own: Sequence[Picture], outputs: Arrays) -> Expectations:
    """The stored pictures and answers, and after them the user's."""
    named = [dataclasses.replace(picture, name=f"own/{picture.name}") for picture in own]
    both = {
        name: np.concatenate([values, outputs[name]])
        for name, values in stored.outputs.items()
        if name in outputs
    }
    return Expectations((*stored.pictures, *named), both)

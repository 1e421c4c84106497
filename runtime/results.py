"""Results of tagging: scores, and from them tags and heatmaps, computed when used."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bank.class_bank import FloatArray
from taidpt.runtime.bank.probability_maps import MapJson, ProbabilityMaps
from taidpt.runtime.bank.thresholds import UNCERTAIN, Threshold, Thresholds, is_from_texts
from taidpt.runtime.bundle.view import join_tiles
from taidpt.runtime.errors import InputError
from taidpt.runtime.top_k import expand_top

__all__ = ["Tag", "TagBatch", "TagResult", "Vocabulary"]

# A threshold given by hand has no gap; a twentieth of its size is about the gap of the defaults.
_LEAST_GAP = 0.05


@dataclass(frozen=True)
class Tag:
    """One tag of one frame.

    Attributes:
        name: the tag's name.
        score: the merged score; comparable between frames, but not between tags.
        on: whether the score reaches the tag's threshold.
        probability: the calibrated probability; None before calibration with pictures.
        upper_bound: whether `score` is only an upper bound, because an export with `--top-k`
            returns the best scores of each frame alone. Such a tag is not on.
        threshold_source: the origin of the threshold: "default", "from texts", "calibrated", ….
            Treat one from texts as a first guess.
    """

    name: str
    score: float
    on: bool
    probability: float | None = None
    upper_bound: bool = False
    threshold_source: str = "default"

    @property
    def uncertain(self) -> bool:
        """Whether the probability lies strictly between 0.2 and 0.8, the uncertain band."""
        return self.probability is not None and UNCERTAIN[0] < self.probability < UNCERTAIN[1]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, always with the same keys."""
        return {
            "name": self.name,
            "score": self.score,
            "on": self.on,
            "probability": self.probability,
            "threshold_source": self.threshold_source,
            "uncertain": self.uncertain,
            "upper_bound": self.upper_bound,
        }


class Vocabulary:
    """The tags of a bank with their thresholds and maps; shared by all results of a tagger."""

    def __init__(
        self,
        names: tuple[str, ...],
        thresholds: Sequence[Threshold],
        maps: Sequence[MapJson | None],
        grid: tuple[int, int],
        local_rows: FloatArray | None = None,
        corners: tuple[tuple[int, int], ...] = ((0, 0),),
    ) -> None:
        """Describe C tags.

        Args:
            names: C tag names.
            thresholds: C thresholds on the merged score.
            maps: C maps from score to probability, each None before calibration.
            grid: rows and columns of patches, of a tile if there are several.
            local_rows: local class embeddings, float32 [C, D]; None gives no heatmaps.
            corners: top and left of each tile in the frame, in patches.
        """
        table = Thresholds.of(thresholds)
        self.names = names
        self.on, self.off, self.sources = table.on, table.off, table.sources
        self._from_texts = tuple(map(is_from_texts, table.sources))
        self.maps = ProbabilityMaps.of(maps)
        self.grid, self.corners = grid, corners
        self._local_rows = local_rows

    def with_threshold(self, on: float, off: float) -> Vocabulary:
        """The same tags with one pair of thresholds for all of them.

        Raises:
            InputError: `off` is above `on`.
        """
        if off > on:
            raise InputError(f"the off threshold must not exceed the on threshold, {off} > {on}")
        changed = copy.copy(self)
        changed.on = np.full(len(self.names), on)
        changed.off = np.full(len(self.names), off)
        changed.sources = ("given",) * len(self.names)
        return changed

    @functools.cached_property
    def text_note(self) -> str:
        """A few words for people where thresholds come from texts alone; else empty."""
        sources = sorted(set(filter(is_from_texts, self.sources)))
        return f"thresholds {', '.join(sources)}: a first guess" if sources else ""

    def index(self, name: str) -> int:
        """The row of a tag.

        Raises:
            InputError: there is no such tag; the message suggests similar names.
        """
        row = self._index.get(name)
        if row is None:
            import difflib

            close = difflib.get_close_matches(name, self.names, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"tags: {self._some()}"
            raise InputError(f"this bundle has no tag {name!r}; {hint}")
        return row

    def on_tags(
        self, scores: npt.NDArray[Any], exact: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.bool_]:
        """Which tags are on: those whose score is known and reaches the on threshold.

        Args:
            scores: [C] or [N, C].
            exact: which scores are known, of the same shape; None: all of them.
        Returns:
            bool, of the same shape.
        """
        reached = np.asarray(scores >= self.on)
        return reached if exact is None else reached & exact

    def probability(self, index: int, score: float) -> float | None:
        """The calibrated probability of a score, interpolated linearly between the map's points.

        None before calibration: a map from texts alone is far too sure of itself on pictures.
        """
        return None if self._from_texts[index] else self.maps.probability(index, score)

    def probabilities(self, index: int, scores: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """The calibrated probabilities of scores of one tag, any shape; see `probability`."""
        return None if self._from_texts[index] else self.maps.values(index, scores)

    def level(self, index: int, score: float) -> float:
        """Position of a score on a bar from 0 to 1, the same scale in every frame.

        The tag's map from score to probability, also one from texts. Without a map: a logistic
        curve that is 0.5 at the on threshold and rises over the gap between the thresholds.
        """
        mapped = self.maps.probability(index, score)
        if mapped is not None:
            return mapped
        on, off = float(self.on[index]), float(self.off[index])
        gap = max(on - off, _LEAST_GAP * max(abs(on), 1.0))
        return 0.5 * (1.0 + math.tanh((score - on) / gap / 2))

    def local_row(self, index: int) -> FloatArray:
        """The local class embedding of one tag, float32 [D].

        Raises:
            InputError: the results carry no class bank.
        """
        if self._local_rows is None:
            raise InputError("these results carry no class bank, so they have no heatmaps")
        return np.asarray(self._local_rows[index])

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def _some(self) -> str:
        return ", ".join(self.names[:8]) + (", …" if len(self.names) > 8 else "")


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class TagResult:
    """Scores of one frame.

    Attributes:
        scores: merged scores in the order of the bundle's tags, float32 [C].
        patch_features: unit rows, float32 [P, D].
        global_features: unit length, float32 [D], of tiles [tiles, D]; None when the graph does not
            give it.
        vocabulary: names, thresholds and grid.
        exact: which scores are known, bool [C]; the others are upper bounds. None: all are known.
    """

    scores: FloatArray
    patch_features: FloatArray
    global_features: FloatArray | None
    vocabulary: Vocabulary
    exact: npt.NDArray[np.bool_] | None = None

    @property
    def tags(self) -> tuple[Tag, ...]:
        """All tags, best score first; equal scores in the bundle's order."""
        return self.top(len(self.scores))

    @property
    def on(self) -> npt.NDArray[np.bool_]:
        """Which tags reach their thresholds, bool [C], in the bundle's order."""
        return self.vocabulary.on_tags(self.scores, self.exact)

    @property
    def on_tags(self) -> tuple[Tag, ...]:
        """The tags that are on, best score first."""
        order = self._order()
        return tuple(self._tag(int(index)) for index in order[self.on[order]])

    def top(self, count: int) -> tuple[Tag, ...]:
        """The `count` best tags, best score first."""
        return tuple(self._tag(int(index)) for index in self._order()[:count])

    def _order(self) -> npt.NDArray[np.int64]:
        """All rows, best score first; scores that are known before upper bounds."""
        known = () if self.exact is None else (~self.exact,)
        return np.lexsort((*known, -self.scores))

    def __getitem__(self, name: str) -> Tag:
        """A tag by name, on or off; InputError if the bundle has no such tag."""
        return self._tag(self.vocabulary.index(name))

    def __contains__(self, name: object) -> bool:
        """Whether a tag is on; InputError if the bundle has no such tag."""
        return self[str(name)].on

    def __iter__(self) -> Iterator[Tag]:
        """The tags that are on, best score first; `tags` has all."""
        return iter(self.on_tags)

    def heatmap(self, name: str) -> FloatArray:
        """Where a tag is seen, in the part of the frame that the model looks at.

        Args:
            name: one of the bundle's tags.
        Returns:
            Cosine similarity of each patch with the tag, float32 [rows, columns].
        Raises:
            InputError: there is no such tag.
        """
        row = self.vocabulary.local_row(self.vocabulary.index(name))
        # not a BLAS product: its threads cost more than this small sum
        similarities: FloatArray = np.einsum("pd,d->p", self.patch_features, row)
        return join_tiles(similarities, self.vocabulary.grid, self.vocabulary.corners)

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """Return plain JSON values: the `top` best tags (None: all), best score first."""
        count = len(self.scores) if top is None else top
        return {"tags": [tag.to_dict() for tag in self.top(count)]}

    def __repr__(self) -> str:
        best = ", ".join(f"{tag.name} {tag.score:.2f}" for tag in self.top(3))
        note = f"; {self.vocabulary.text_note}" if self.vocabulary.text_note else ""
        return f"TagResult({int(self.on.sum())} of {len(self.scores)} tags on; best: {best}{note})"

    def _tag(self, index: int) -> Tag:
        score = float(self.scores[index])
        known = self.exact is None or bool(self.exact[index])
        return Tag(
            name=self.vocabulary.names[index],
            score=score,
            on=known and bool(score >= self.vocabulary.on[index]),
            probability=self.vocabulary.probability(index, score) if known else None,
            upper_bound=not known,
            threshold_source=self.vocabulary.sources[index],
        )


class TagBatch(Sequence[TagResult]):
    """Results of a batch, in its order.

    Attributes:
        outputs: the graph's outputs by name.
        scores: merged scores, float32 [N, C].
        vocabulary: names, thresholds and grid.
        exact: which scores are known, bool [N, C]; None: all of them.
    """

    __slots__ = ("exact", "outputs", "scores", "vocabulary")

    def __init__(self, outputs: Mapping[str, npt.NDArray[Any]], vocabulary: Vocabulary) -> None:
        """Wrap the graph's outputs: "scores" [N, C], "patch_features" [N, P, D], and others.

        A graph exported with `--top-k` gives two outputs in place of "scores"; see `expand_top`.
        """
        self.outputs = outputs
        self.exact: npt.NDArray[np.bool_] | None = None
        if "scores" in outputs:
            self.scores = outputs["scores"]
        else:
            self.scores, self.exact = expand_top(outputs, len(vocabulary.names))
        self.vocabulary = vocabulary

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, index: int) -> TagResult: ...
    @overload
    def __getitem__(self, index: slice) -> TagBatch: ...
    def __getitem__(self, index: int | slice) -> TagResult | TagBatch:
        if isinstance(index, slice):
            part = {name: values[index] for name, values in self.outputs.items()}
            return TagBatch(part, self.vocabulary)
        features = self.outputs.get("global_features")
        return TagResult(
            scores=self.scores[index],
            patch_features=self.outputs["patch_features"][index],
            global_features=None if features is None else features[index],
            vocabulary=self.vocabulary,
            exact=None if self.exact is None else self.exact[index],
        )

    def __iter__(self) -> Iterator[TagResult]:
        return (self[index] for index in range(len(self)))

    @property
    def on(self) -> npt.NDArray[np.bool_]:
        """Which tags reach their thresholds, bool [N, C]."""
        return self.vocabulary.on_tags(self.scores, self.exact)

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """Return plain JSON values: `frames`, each as `TagResult.to_dict` returns it."""
        return {"frames": [result.to_dict(top) for result in self]}

    def __repr__(self) -> str:
        return f"TagBatch({len(self)} frames, {self.scores.shape[1]} tags)"

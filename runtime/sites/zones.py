"""Named regions of a camera: their own scores from the patches of the same run."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from taidpt.runtime.adapting.similarity import pool_patches
from taidpt.runtime.errors import InputError
from taidpt.runtime.events.machine import Event, EventMachine
from taidpt.runtime.results import Vocabulary
from taidpt.runtime.sites.config import ZoneConfig
from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.stream.stream import StreamSettings
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["Zone", "patches_inside"]

Floats = npt.NDArray[np.float32]


class Zone:
    """Scores and events of a zone.

    The score of a tag is what it would be if the local branch saw the patches of the zone alone;
    the global feature stays that of the whole picture:

        score_zone = score + scale · w · (local_zone − local)

    with the merge weight w and the local similarity over all patches. A score transform (center,
    log-softmax) stays that of the whole picture.
    """

    def __init__(self, config: ZoneConfig, tagger: Tagger, settings: StreamSettings) -> None:
        """Prepare a zone.

        Raises:
            InputError: the bundle has no such tag.
        """
        self.config = config
        self._tagger, self._settings = tagger, settings
        for name in config.tags:
            tagger.vocabulary.index(name)
        self._vocabulary: Vocabulary | None = None
        self._use(tagger.vocabulary)
        names = tuple(self._names)
        self.machine = EventMachine(names, settings.event_settings(*self._thresholds))
        self._mask = functools.lru_cache(maxsize=4)(self._patches)

    @property
    def source(self) -> str:
        """The name under which its state is kept."""
        return f"{self.config.camera}/{self.config.id}"

    @property
    def on(self) -> tuple[str, ...]:
        """Names of the tags that are on in the zone."""
        names = self.machine.names
        return tuple(names[index] for index in self.machine.on.nonzero()[0])

    def update(self, moment: Moment) -> list[Event]:
        """The events that a moment of its camera decides in the zone."""
        if moment.result.vocabulary is not self._vocabulary:
            self._use(moment.result.vocabulary)
            self.machine.retag(self._names, self._settings.event_settings(*self._thresholds))
        if not self._names:
            return []
        return self.machine.update([moment.time or 0.0], self.scores(moment)[None])

    def scores(self, moment: Moment) -> Floats:
        """The scores of the zone's tags, float32 [T]."""
        scoring = self._tagger.bundle.manifest.scoring
        cosines = np.einsum("pd,td->pt", moment.result.patch_features, self._rows)
        inside = self._mask(moment.frame.picture_hw)
        inner, outer = (
            pool_patches(part, scoring.temperature) for part in (cosines[inside], cosines)
        )
        scores = moment.result.scores[self._columns]
        return np.asarray(scores + self._scale * scoring.merge_weight * (inner - outer), np.float32)

    def _use(self, vocabulary: Vocabulary) -> None:
        """Take the rows of the zone's tags; those that were removed are left out."""
        place = {name: index for index, name in enumerate(vocabulary.names)}
        wanted = self.config.tags or vocabulary.names
        self._names = [name for name in wanted if name in place]
        self._columns = [place[name] for name in self._names]
        dim = self._tagger.bundle.manifest.model.embed_dim
        rows = [vocabulary.local_row(index) for index in self._columns]
        self._rows = np.array(rows, np.float32).reshape(-1, dim)
        bank = self._tagger.class_bank
        scales = dict(zip(bank.names, bank.scale.tolist(), strict=True))
        usual = float(np.median(bank.scale))  # of a tag that is gone between two frames
        self._scale = np.array([scales.get(name, usual) for name in self._names], np.float32)
        self._thresholds = vocabulary.on[self._columns], vocabulary.off[self._columns]
        self._vocabulary = vocabulary

    def _patches(self, frame_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
        manifest = self._tagger.bundle.manifest
        spec = manifest.input
        box = spec.plan(frame_hw).box(frame_hw, spec.crop_hw)
        corners = spec.view.corners
        inside = patches_inside(self.config.points, manifest.model.grid, corners, box, frame_hw)
        if not inside.any():
            raise InputError(
                f"zone {self.config.id!r}: the model sees no patch of it in frames of "
                f"{frame_hw[1]}x{frame_hw[0]}; make it larger, or nearer to the middle"
            )
        return inside


def patches_inside(
    points: Sequence[Sequence[float]],
    grid: tuple[int, int],
    corners: Sequence[tuple[int, int]],
    box: tuple[float, float, float, float],
    frame_hw: tuple[int, int],
) -> npt.NDArray[np.bool_]:
    """Which patches have their centre inside a polygon.

    Args:
        points: corners (x, y) in parts of the frame, 0 to 1.
        grid: rows and columns of patches, of a tile if there are several.
        corners: top and left of each of the T tiles, in patches; ((0, 0),) without tiles.
        box: left, top, right and bottom of what the model sees, in pixels of the frame.
        frame_hw: height and width of the frame.
    Returns:
        bool [T · rows · columns], tile by tile, row by row.
    """
    rows, columns = grid
    left, top, right, bottom = box
    height = max(row for row, _ in corners) + rows
    width = max(column for _, column in corners) + columns
    at = [np.mgrid[row : row + rows, column : column + columns] for row, column in corners]
    patch_y, patch_x = np.concatenate([one.reshape(2, -1) for one in at], axis=1)
    y = (top + (patch_y + 0.5) / height * (bottom - top)) / frame_hw[0]
    x = (left + (patch_x + 0.5) / width * (right - left)) / frame_hw[1]
    inside = np.zeros(len(x), bool)
    for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
        if y1 == y2:
            continue
        crosses = (y1 > y) != (y2 > y)  # the edge is left of the centre, or right of it
        inside ^= crosses & (x < x1 + (y - y1) / (y2 - y1) * (x2 - x1))
    return inside

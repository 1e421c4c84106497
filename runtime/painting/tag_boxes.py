"""Boxes of tags on a frame: name, probability, and a bar with the threshold marked on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taidpt.runtime.bank.thresholds import is_from_texts
from taidpt.runtime.bundle.input_spec import InputSpec
from taidpt.runtime.painting.drawing import font, letterbox, paint_heatmap, rgb_image
from taidpt.runtime.printable import clock_text, printable
from taidpt.runtime.results import Tag, Vocabulary
from taidpt.runtime.stream.moment import Moment

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Painter"]

# RGBA: text, secondary text, text of a tag that is not seen; the box behind them, the empty bar;
# the bar of a tag that is on and of one that is off. The green is that of the pages, lighter, as it
# is on a dark box.
_INK, _SOFT, _FAINT = (255, 255, 255, 255), (205, 214, 211, 255), (140, 148, 146, 255)
_SHADE, _TRACK = (14, 20, 18, 185), (255, 255, 255, 60)
_ON, _OFF = (76, 206, 178, 255), (150, 160, 157, 255)
# A text line is 1/26 of the frame's shorter side: 28 pixels on 720p, legible on a phone. Boxes are
# 13 characters wide, so that half of a wide frame stays free.
_LINES_A_SIDE = 26
_LEAST_SIZE = 11
_WIDTH_IN_SIZES = 13
_LEAST_LETTERS = 4
# With tags that are off, there are boxes for this many: more would hide the picture.
_BOXES_WITH_OFF = 6


@dataclass(frozen=True)
class Painter:
    """Paints a moment's tags on its frame.

    A tag that is on only because its shortest time off still runs, with a score below its off
    threshold in this frame, keeps its box in grey: hiding it would make boxes flicker.

    Attributes:
        spec: `input` of the bundle's manifest, which places the heatmap.
        heatmap: a tag whose heatmap is painted while the tag is on and not grey, or None.
        show_off: whether the best tags that are off get boxes too.
    """

    spec: InputSpec
    heatmap: str | None = None
    show_off: bool = False

    def paint(self, moment: Moment, size: tuple[int, int] | None = None) -> Image:
        """The frame with its tags, and the time of a video at the bottom.

        Args:
            moment: a tagged frame.
            size: width and height of the result, in pixels; a frame of another shape gets black
                bars. None keeps the frame's own size.
        """
        image = rgb_image(moment.frame.picture)
        lit = _lit(moment)
        warm = self.heatmap if self.heatmap in lit else None
        if warm is not None:
            image = paint_heatmap(image, moment.result, warm, self.spec)
        if size is not None:
            image = letterbox(image, size)
        canvas = _Canvas(image)
        if not canvas.has_room:
            return image
        most = canvas.most_boxes
        tags = self._shown(moment, lit)
        vocabulary = moment.result.vocabulary
        for row, tag in enumerate(tags[:most]):
            canvas.draw_box(row, tag, tag.name in lit, vocabulary)
        left = [] if moment.time is None else [clock_text(moment.time)]
        hidden = len([tag for tag in tags[most:] if tag.name in moment.on])
        left += [f"{hidden} more tags on"] if hidden else []
        left += _text_note(tags[:most])
        canvas.draw_footer(" · ".join(left), f"heatmap: {printable(warm)}" if warm else "")
        return image

    def _shown(self, moment: Moment, lit: frozenset[str]) -> list[Tag]:
        """The tags that are on, best first, grey ones last; then those that are off, if shown."""
        on = [moment.result[name] for name in moment.on]
        on.sort(key=lambda tag: (tag.name not in lit, -tag.score))
        if not self.show_off:
            return on
        best = moment.result.top(len(on) + _BOXES_WITH_OFF)
        off = [tag for tag in best if tag.name not in moment.on]
        return on + off[: max(_BOXES_WITH_OFF - len(on), 0)]


def _lit(moment: Moment) -> frozenset[str]:
    """The tags that are on and whose scores in this frame reach their off thresholds."""
    result, off = moment.result, moment.result.vocabulary.off
    index = result.vocabulary.index
    return frozenset(name for name in moment.on if result[name].score >= off[index(name)])


def _text_note(tags: list[Tag]) -> list[str]:
    """The origin of thresholds from texts, which are a first guess."""
    sources = sorted({tag.threshold_source for tag in tags if is_from_texts(tag.threshold_source)})
    return [f"thresholds {', '.join(sources)}"] if sources else []


class _Canvas:
    """A picture, and the measures of its boxes."""

    def __init__(self, image: Image) -> None:
        from PIL import ImageDraw

        self._draw = ImageDraw.Draw(image, "RGBA")
        self._width, self._height = image.size
        self._size = max(_LEAST_SIZE, round(min(image.size) / _LINES_A_SIDE))
        self._font = font(self._size)
        self._pad = max(3, self._size // 3)
        self._row = round(self._size * 2.35)
        self._box_width = min(self._width - 2 * self._pad, self._size * _WIDTH_IN_SIZES)

    @property
    def has_room(self) -> bool:
        """Whether a few letters fit; a thumbnail is left as it is."""
        return min(self._width, self._height) >= _LEAST_LETTERS * self._size

    @property
    def most_boxes(self) -> int:
        """How many boxes fit above the footer, at least one."""
        return max((self._height - 3 * self._size) // self._row, 1)

    def draw_box(self, row: int, tag: Tag, lit: bool, vocabulary: Vocabulary) -> None:
        """One tag: its name and probability, or score before calibration, above its bar."""
        pad, size = self._pad, self._size
        left, top = pad, pad + row * self._row
        right, bottom = left + self._box_width, top + self._row - max(2, pad // 2)
        self._draw.rounded_rectangle((left, top, right, bottom), radius=pad, fill=_SHADE)
        value = f"{tag.score:.2f}" if tag.probability is None else f"{tag.probability:.0%}"
        inner_left, inner_right = left + 2 * pad, right - 2 * pad
        value_left = inner_right - self._draw.textlength(value, font=self._font)
        name = self._shortened(printable(tag.name), value_left - inner_left - pad)
        name_ink, value_ink = (_INK, _SOFT) if lit else (_FAINT, _FAINT)
        text_top = top + max(1, pad // 3)
        self._draw.text((inner_left, text_top), name, fill=name_ink, font=self._font)
        self._draw.text((value_left, text_top), value, fill=value_ink, font=self._font)
        thick = max(3, size // 4)
        bar_top = bottom - pad - thick
        length = inner_right - inner_left
        index = vocabulary.index(tag.name)
        filled = round(length * vocabulary.level(index, tag.score))
        mark = inner_left + round(length * vocabulary.level(index, float(vocabulary.on[index])))
        self._draw.rectangle((inner_left, bar_top, inner_right, bar_top + thick), fill=_TRACK)
        if filled:
            bar = (inner_left, bar_top, inner_left + filled, bar_top + thick)
            self._draw.rectangle(bar, fill=_ON if lit else _OFF)
        out = max(1, thick // 2)
        tick = (mark - out // 2, bar_top - out, mark + (out + 1) // 2, bar_top + thick + out)
        self._draw.rectangle(tick, fill=_INK)

    def draw_footer(self, left: str, right: str) -> None:
        """Small texts at the bottom, each on a box; empty texts are left out."""
        for text, anchor in ((left, "l"), (right, "r")):
            if not text:
                continue
            text = self._shortened(text, self._width - 6 * self._pad)
            wide = self._draw.textlength(text, font=self._font) + 2 * self._pad
            x = self._pad if anchor == "l" else self._width - self._pad - wide
            top = self._height - self._pad - round(self._size * 1.5)
            box = (x, top, x + wide, self._height - self._pad)
            self._draw.rounded_rectangle(box, radius=self._pad, fill=_SHADE)
            self._draw.text((x + self._pad, top + self._pad // 2), text, fill=_INK, font=self._font)

    def _shortened(self, text: str, width: float) -> str:
        """The text, or as much of it as fits, with an ellipsis."""
        if self._draw.textlength(text, font=self._font) <= width:
            return text
        while text and self._draw.textlength(f"{text}…", font=self._font) > width:
            text = text[:-1]
        return f"{text}…"

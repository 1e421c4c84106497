"""The frames that a bundle's graph takes, and how other pictures become such frames."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from taidpt.runtime.bundle.view import CropPlan, View
from taidpt.runtime.storage.json_reader import JsonReader

__all__ = ["NV12", "RGB", "YUV_MATRICES", "YUV_RANGES", "BakedResize", "InputSpec"]

RGB, NV12 = "rgb_u8_nhwc", "nv12_u8"
YUV_MATRICES = ("bt601", "bt709")
YUV_RANGES = ("limited", "full")
# `resize` and `crop` of the manifest, for views that cut the sides off and for views that see all.
# Runtimes from before there were views know the first pair alone, and refuse the second.
_RESIZES = {False: ("shortest_side", "center"), True: ("both_sides", "none")}


@dataclass(frozen=True)
class BakedResize:
    """A resize and crop inside the graph.

    Attributes:
        crop: height and width of the encoder's input.
        matrix, range: of NV12 frames, "bt601" or "bt709" and "limited" or "full"; None for RGB.
    """

    crop: tuple[int, int]
    matrix: str | None = None
    range: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        colours = {} if self.matrix is None else {"matrix": self.matrix, "range": self.range}
        return {"crop": list(self.crop), **colours}

    @classmethod
    def from_json(cls, reader: JsonReader, coloured: bool) -> BakedResize:
        """From a JSON object; `coloured` says whether frames are NV12."""
        crop = reader.size("crop", "[height, width]")
        if not coloured:
            return cls(crop)
        matrix, extent = reader.choice("matrix", YUV_MATRICES), reader.choice("range", YUV_RANGES)
        return cls(crop, matrix, extent)


@dataclass(frozen=True)
class InputSpec:
    """The graph's input: uint8 frames.

    Attributes:
        height, width: of a frame, in pixels.
        mean, std: of values in 0 … 1; the graph applies them, the manifest records them.
        name: of the graph's input.
        format: RGB, or NV12 if the graph converts colours.
        interpolation, antialias, view: how a picture of another size becomes a frame, and which
            part of it the model sees.
        baked_resize: the resize inside the graph; frames must have exactly the size above then.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    name: str = "frames"
    format: str = RGB
    interpolation: str = "bicubic"
    antialias: bool = True
    view: View = field(default_factory=View)
    baked_resize: BakedResize | None = None

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame, uint8: [H, W, 3], or [H · 3/2, W] for NV12."""
        if self.format == NV12:
            return self.height * 3 // 2, self.width
        return self.height, self.width, 3

    @property
    def colours(self) -> tuple[str, str]:
        """Matrix and range of NV12 frames, as `taidpt.runtime.preprocess.nv12` takes them."""
        baked = self.baked_resize
        return (str(baked.matrix), str(baked.range)) if baked else ("none", "none")

    @property
    def source_colours(self) -> tuple[str, str] | None:
        """The value for `SourceOptions.colours`: None for RGB frames."""
        return self.colours if self.format == NV12 else None

    @property
    def crop_hw(self) -> tuple[int, int]:
        """Height and width of what the encoder gets, before it is cut into tiles."""
        baked = self.baked_resize
        return (self.height, self.width) if baked is None else baked.crop

    def plan(self, frame_hw: tuple[int, int]) -> CropPlan:
        """How a frame of this height and width, in pixels, becomes what the encoder gets."""
        return self.view.plan(frame_hw, self.crop_hw)

    def describe_view(self) -> str:
        """The view and the part of a frame that it sees, in a few words."""
        height, width = self.crop_hw
        if self.view.kind == "crop":
            frame_hw = (9, 16) if self.baked_resize is None else (self.height, self.width)
            left, top, right, bottom = self.plan(frame_hw).box(frame_hw, self.crop_hw)
            share = (right - left) * (bottom - top) / (frame_hw[0] * frame_hw[1])
            of = "16:9" if self.baked_resize is None else f"{self.width}x{self.height}"
            return f"view crop: the middle of each frame, {share:.0%} of {of}"
        how = f"squeezed into {width}x{height}"
        if self.view.kind == "wide":
            how = f"resized to {width}x{height}"
        elif self.view.tiles is not None:
            side = self.view.tiles.side
            how = f"in {len(self.view.corners)} tiles of {side}x{side}"
        return f"view {self.view}: the whole frame, {how}"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        baked = None if self.baked_resize is None else self.baked_resize.to_json()
        resize, crop = _RESIZES[self.view.sees_all]
        own = {**asdict(self), "resize": resize, "crop": crop, "baked_resize": baked}
        del own["view"]
        return own if self.view.kind == "crop" else {**own, "view": self.view.to_json()}

    @classmethod
    def from_json(cls, reader: JsonReader) -> InputSpec:
        """From a JSON object; BundleError when a key is missing or wrong.

        Without `view`, which older bundles lack, it is a crop.
        """
        form = reader.choice("format", (RGB, NV12))
        baked = None
        if form == NV12 or "baked_resize" in reader:
            baked = BakedResize.from_json(reader.child("baked_resize"), form == NV12)
        view = View.from_json(reader.child("view")) if "view" in reader else View()
        resize, crop = _RESIZES[view.sees_all]
        reader.choice("resize", (resize,))
        reader.choice("crop", (crop,))
        spec = reader.build(
            cls,
            mean=_three(reader, "mean"),
            std=_three(reader, "std"),
            format=form,
            interpolation=reader.choice("interpolation", ("bicubic",)),
            view=view,
            baked_resize=baked,
        )
        if view.tiles is not None and not view.tiles.fits(*spec.crop_hw):
            reader.fail("view", "tiles inside the input")
        return spec


def _three(reader: JsonReader, key: str) -> tuple[float, float, float]:
    values = reader.numbers(key)
    if len(values) != 3:
        reader.fail(key, "three numbers, one a colour")
    return values[0], values[1], values[2]

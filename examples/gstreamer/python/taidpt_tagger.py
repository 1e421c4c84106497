"""A GStreamer element that attaches tags to frames and posts a message when one goes on or off.

    export GST_PLUGIN_PATH=$PWD/examples/gstreamer
    gst-launch-1.0 -m filesrc location=clip.mp4 ! decodebin ! videoconvert ! \\
        taidpt_tagger bundle=street.taidpt ! videoconvert ! autovideosink

`apt install python3-gst-1.0 gstreamer1.0-python3-plugin-loader`, and taidpt in that Python: if it
is in a virtual environment, let PYTHONPATH name its site-packages. Pixels pass unchanged. For a
camera, `queue leaky=downstream max-size-buffers=1 !` before the element drops late frames.

Each tag that is on is a GstVideoRegionOfInterestMeta as large as the frame: `roi_type` is the tag,
`id` its number in the bundle, and its param `taidpt` holds tag, score and, if calibrated,
probability.
"""

from __future__ import annotations

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstBase", "1.0")
gi.require_version("GstVideo", "1.0")

import numpy as np
from gi.repository import GLib, GObject, Gst, GstBase, GstVideo

from taidpt import Tagger, TaidptError
from taidpt.runtime import EventMachine, EventSettings, TagResult

Gst.init(None)
CAPS = Gst.Caps.from_string("video/x-raw,format={RGB,BGR}")


class TaidptTagger(GstBase.BaseTransform):
    """Attaches all tags that are on; posts messages `taidpt-event`: tag, kind, time and score."""

    __gstmetadata__ = ("Tagger", "Filter/Analyzer/Video", __doc__.partition("\n")[0], "taidpt")
    __gsttemplates__ = (
        Gst.PadTemplate.new("sink", Gst.PadDirection.SINK, Gst.PadPresence.ALWAYS, CAPS),
        Gst.PadTemplate.new("src", Gst.PadDirection.SRC, Gst.PadPresence.ALWAYS, CAPS),
    )
    bundle = GObject.Property(type=str, nick="bundle", blurb="Path of a .taidpt folder")
    device = GObject.Property(type=str, default="auto", nick="device", blurb="Where to compute")

    def __init__(self) -> None:
        super().__init__()
        self.set_in_place(True)

    def do_start(self) -> bool:
        """Load the bundle; an error stops the pipeline with one line."""
        try:
            self._tagger = Tagger.load(self.bundle or "", device=self.device)
        except TaidptError as error:
            domain, code = Gst.ResourceError.quark(), Gst.ResourceError.OPEN_READ
            failure = GLib.Error.new_literal(domain, str(error), code)
            self.post_message(Gst.Message.new_error(self, failure, "bundle"))
            return False
        tags = self._tagger.vocabulary
        settings = EventSettings(tags.on, tags.off, smoothing_s=0.3, min_on_s=0.2, min_off_s=0.5)
        self._events = EventMachine(tags.names, settings)
        return True

    def do_stop(self) -> bool:
        """Release what runs the graph."""
        self._tagger.close()
        return True

    def do_set_caps(self, incaps: Gst.Caps, outcaps: Gst.Caps) -> bool:
        """Learn the frames' size and layout."""
        self._info = GstVideo.VideoInfo.new_from_caps(incaps)
        self._bgr = self._info.finfo.format == GstVideo.VideoFormat.BGR
        return True

    def do_transform_ip(self, buffer: Gst.Buffer) -> Gst.FlowReturn:
        """Tag one frame; its rows may be padded."""
        height, width = self._info.height, self._info.width
        there, mapped = buffer.map(Gst.MapFlags.READ)
        if not there:
            return Gst.FlowReturn.ERROR
        try:
            rows = np.frombuffer(mapped.data, np.uint8).reshape(height, self._info.stride[0])
            frame = np.ascontiguousarray(rows[:, : 3 * width]).reshape(height, width, 3)
        finally:
            buffer.unmap(mapped)
        result = self._tagger(frame, bgr=self._bgr)
        self._attach(buffer, result)
        for event in self._events.update([buffer.pts / Gst.SECOND], result.scores[None]):
            text = Gst.Structure.new_empty("taidpt-event")
            for name in ("tag", "kind"):
                text.set_value(name, getattr(event, name))
            for name, value in (("time", event.time_s), ("score", event.score)):
                text.set_value(name, float(value))
            self.post_message(Gst.Message.new_element(self, text))
        return Gst.FlowReturn.OK

    def _attach(self, buffer: Gst.Buffer, result: TagResult) -> None:
        """Attach the tags whose scores reach their thresholds in this frame."""
        whole = (0, 0, self._info.width, self._info.height)
        for tag in result.on_tags:
            region = GstVideo.buffer_add_video_region_of_interest_meta(buffer, tag.name, *whole)
            region.id = result.vocabulary.index(tag.name)
            values = Gst.Structure.new_empty("taidpt")
            values.set_value("tag", tag.name)
            values.set_value("score", tag.score)
            if tag.probability is not None:
                values.set_value("probability", tag.probability)
            region.add_param(values)


GObject.type_register(TaidptTagger)
__gstelementfactory__ = ("taidpt_tagger", Gst.Rank.NONE, TaidptTagger)

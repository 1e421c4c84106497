"""A ROS 2 node that tags images and publishes events.

    python3 examples/ros2/taidpt_node.py --ros-args -p bundle:=street.taidpt \\
        -r image:=/camera/image_raw

| | topic | type | content |
|---|---|---|---|
| in | `image` | sensor_msgs/Image | rgb8, bgr8 or mono8 |
| out | `~/events` | std_msgs/String | JSON when a tag goes on or off: tag, kind, time_s, score, … |
| out | `~/tags` | std_msgs/String | JSON of each image: stamp in seconds, the tags that are on |

It runs in the Python of ROS 2 (`source /opt/ros/humble/setup.bash`) with taidpt installed there.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String

from taidpt import Tagger, TaidptError
from taidpt.runtime import EventMachine, EventSettings

# Bytes a pixel of the encodings that a tagger takes.
CHANNELS = {"rgb8": 3, "bgr8": 3, "mono8": 1}
# A reader that is slower than the events gets the last ones.
DEPTH = 10


class TaidptNode(Node):
    """Tags the images of one topic."""

    def __init__(self) -> None:
        super().__init__("taidpt")
        bundle = self.declare_parameter("bundle", "street.taidpt").value
        device = self.declare_parameter("device", "auto").value
        self._tagger = Tagger.load(bundle, device=device)
        tags = self._tagger.vocabulary
        settings = EventSettings(tags.on, tags.off, smoothing_s=0.3, min_on_s=0.2, min_off_s=0.5)
        self._events = EventMachine(tags.names, settings)
        self._last_s = float("-inf")
        self._event_topic = self.create_publisher(String, "~/events", DEPTH)
        self._tag_topic = self.create_publisher(String, "~/tags", DEPTH)
        # sensor data: an image that comes while another is tagged may be dropped
        self.create_subscription(Image, "image", self.on_image, qos_profile_sensor_data)
        self.get_logger().info(f"{bundle} on {self._tagger.device}")

    def on_image(self, message: Image) -> None:
        """Tag one image and publish what changed."""
        if message.encoding not in CHANNELS:
            known = ", ".join(CHANNELS)
            self.get_logger().warning(
                f"image has the encoding {message.encoding}; expected {known}", once=True
            )
            return
        stamp_s = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        if stamp_s < self._last_s:
            self.get_logger().warning("images older than the last one are left out", once=True)
            return
        self._last_s = stamp_s
        result = self._tagger(pixels(message), bgr=message.encoding == "bgr8")
        on = [{"name": tag.name, "score": tag.score} for tag in result]
        self._tag_topic.publish(String(data=json.dumps({"stamp": stamp_s, "on": on})))
        for event in self._events.update([stamp_s], result.scores[None]):
            self._event_topic.publish(String(data=json.dumps(event.to_dict())))

    def destroy_node(self) -> None:
        """Release what runs the graph."""
        self._tagger.close()
        super().destroy_node()


def pixels(message: Image) -> np.ndarray:
    """The image as uint8 [H, W, channels]; its rows may be padded to `step` bytes."""
    channels = CHANNELS[message.encoding]
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    wide = rows[:, : message.width * channels]
    return np.ascontiguousarray(wide).reshape(message.height, message.width, channels)


def main() -> None:
    rclpy.init()
    try:
        node = TaidptNode()
    except TaidptError as error:
        sys.exit(f"error: {error}")
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()

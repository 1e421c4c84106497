"""A stub of rclpy's public interface as the example's node uses it, for machines without ROS 2.

Names and signatures are those of rclpy's documentation for Humble: Node's `declare_parameter`,
`create_publisher`, `create_subscription`, `get_logger`, `destroy_node`; messages take their fields
as keyword arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

__all__ = ["Image", "install"]

PARAMETERS: dict[str, Any] = {}


@dataclass
class Stamp:
    sec: int = 0
    nanosec: int = 0


@dataclass
class Header:
    stamp: Stamp = field(default_factory=Stamp)


@dataclass
class Image:
    """sensor_msgs/msg/Image."""

    header: Header = field(default_factory=Header)
    height: int = 0
    width: int = 0
    encoding: str = ""
    is_bigendian: int = 0
    step: int = 0
    data: bytes = b""


@dataclass
class String:
    """std_msgs/msg/String."""

    data: str = ""


@dataclass
class Parameter:
    value: Any


class Publisher:
    def __init__(self, kind: type, topic: str) -> None:
        self.kind, self.topic = kind, topic
        self.published: list[Any] = []

    def publish(self, message: Any) -> None:
        assert isinstance(message, self.kind)
        self.published.append(message)


class Logger:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, *, once: bool = False) -> None:
        if not (once and text in self.lines):
            self.lines.append(text)

    warning = info


class Node:
    def __init__(self, node_name: str) -> None:
        self.node_name = node_name
        self.topics: dict[str, Publisher] = {}
        self.callbacks: dict[str, Callable[[Any], None]] = {}
        self.logger = Logger()

    def declare_parameter(self, name: str, value: Any = None) -> Parameter:
        return Parameter(PARAMETERS.get(name, value))

    def create_publisher(self, msg_type: type, topic: str, qos_profile: Any) -> Publisher:
        self.topics[topic] = Publisher(msg_type, topic)
        return self.topics[topic]

    def create_subscription(
        self, msg_type: type, topic: str, callback: Callable[[Any], None], qos_profile: Any
    ) -> None:
        self.callbacks[topic] = callback

    def get_logger(self) -> Logger:
        return self.logger

    def destroy_node(self) -> None:
        """Nothing to release."""


def install(monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> None:
    """Let `import rclpy` and the messages find this stub."""
    monkeypatch.setattr(sys.modules[__name__], "PARAMETERS", parameters)
    modules = {
        "rclpy": {"init": lambda: None, "try_shutdown": lambda: None},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {"qos_profile_sensor_data": object()},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": Image},
        "std_msgs": {},
        "std_msgs.msg": {"String": String},
    }
    for name, contents in modules.items():
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)

"""What has a `close` can stand in a `with`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

__all__ = ["Closing"]

T = TypeVar("T", bound="Closing")


class Closing(ABC):
    """Base of what holds files, threads or devices until it is closed."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""What a device draws while it works: a Jetson's INA3221 and the like by hwmon, cards by NVML."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taidpt.runtime.measuring.nvml import Card, find_cards

__all__ = ["PowerMeter", "Rail", "find_rails"]

_HWMON = Path("/sys/class/hwmon")
_PERIOD_S = 0.2
_KEPT = 10_000


@dataclass(frozen=True)
class Rail:
    """One supply rail; `watts` reads it.

    Attributes:
        name: as the board calls it: "VDD_IN", "VDD_CPU_GPU_CV".
        power: a file of microwatts; None where `volts` and `amperes` are to be multiplied.
        volts, amperes: files of millivolts and milliamperes.
    """

    name: str
    power: Path | None = None
    volts: Path | None = None
    amperes: Path | None = None

    def watts(self) -> float:
        """What the rail draws now.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        if self.power is not None:
            return int(self.power.read_text()) / 1e6
        assert self.volts is not None  # one or the other, by `find_rails`
        assert self.amperes is not None
        return int(self.volts.read_text()) * int(self.amperes.read_text()) / 1e6


def find_rails(hwmon: Path = _HWMON) -> list[Rail]:
    """The rails that a system shows, by name; none on most desktops.

    Args:
        hwmon: the folder with `hwmon*/power1_input`, or `in1_input`, `curr1_input`, `in1_label`.
    """
    rails = []
    for chip in sorted(hwmon.glob("hwmon*")):
        for number in range(1, 9):
            rail = _rail(chip, number)
            if rail is not None and _reads(rail):
                rails.append(rail)
    return rails


def _rail(chip: Path, number: int) -> Rail | None:
    power = chip / f"power{number}_input"
    if power.exists():
        return Rail(_label(chip, f"power{number}", number), power=power)
    volts, amperes = chip / f"in{number}_input", chip / f"curr{number}_input"
    if volts.exists() and amperes.exists():
        return Rail(_label(chip, f"in{number}", number), volts=volts, amperes=amperes)
    return None


def _label(chip: Path, stem: str, number: int) -> str:
    for path in (chip / f"{stem}_label", chip / "name"):
        if path.exists():
            text = path.read_text("utf-8").strip()
            return text if path.name.endswith("_label") else f"{text} {number}"
    return f"{chip.name} {number}"


def _reads(rail: Rail) -> bool:
    try:
        rail.watts()
    except (OSError, ValueError):
        return False
    return True


class PowerMeter:
    """Reads all rails and cards five times a second in a thread of its own, inside a `with`."""

    def __init__(self, hwmon: Path = _HWMON) -> None:
        """Look for rails in a folder like /sys/class/hwmon, and for cards."""
        self._hwmon = hwmon
        self._rails: list[Rail | Card] = [*find_rails(hwmon), *find_cards()]
        self._watts: dict[str, deque[float]] = {
            rail.name: deque(maxlen=_KEPT) for rail in self._rails
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PowerMeter:
        if self._rails:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._rails:
            self._thread.join()

    def lines(self) -> list[str]:
        """A table for people, or a line that says that this device does not tell."""
        if not self._rails:
            return [
                f"power: this device does not tell (no power or current in {self._hwmon}; no card "
                "that answers NVML, which needs nvidia-ml-py)"
            ]
        head = f"{'watts':<14}{'p50':>9}{'p95':>9}{'p99':>9}"
        return [head, *(_line(name, list(watts)) for name, watts in self._watts.items() if watts)]

    def _run(self) -> None:
        while True:
            for rail in self._rails:
                try:
                    self._watts[rail.name].append(rail.watts())
                except (OSError, ValueError):  # a rail that is switched off for a moment
                    continue
            if self._stop.wait(_PERIOD_S):
                return


def _line(name: str, watts: list[float]) -> str:
    return f"{name:<14}" + "".join(f"{value:>9.2f}" for value in np.percentile(watts, (50, 95, 99)))

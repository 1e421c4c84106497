"""Power draw of a device: INA3221 rails of a Jetson and the like from hwmon, GPUs from NVML."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PowerMeter", "Rail", "find_cards", "find_rails"]

_HWMON = Path("/sys/class/hwmon")
# Channels that are tried of each chip: an INA3221 has three, and eight leave room for others.
_CHANNELS = range(1, 9)
# NVML averages over up to a second, so more than five readings a second add nothing; 10,000 of
# them are the last half hour.
_PERIOD_S = 0.2
_KEPT = 10_000


@dataclass(frozen=True)
class Rail:
    """One supply rail of a board, or one GPU.

    Attributes:
        name: as the board labels it ("VDD_IN", "VDD_CPU_GPU_CV"), or "GPU 0" in NVML's order.
        watts: reads the present draw; any exception means that it cannot be read now.
    """

    name: str
    watts: Callable[[], float]


def find_rails(hwmon: Path = _HWMON) -> list[Rail]:
    """The readable supply rails of a system; none on most desktops.

    Args:
        hwmon: the folder with `hwmon*/power1_input` in µW, or `in1_input` in mV and
            `curr1_input` in mA, and `in1_label`.
    """
    chips = sorted(hwmon.glob("hwmon*"))
    rails = [_rail(chip, channel) for chip in chips for channel in _CHANNELS]
    return [rail for rail in rails if rail is not None and _is_readable(rail)]


def _rail(chip: Path, channel: int) -> Rail | None:
    power, volts, amperes = (chip / f"{key}{channel}_input" for key in ("power", "in", "curr"))
    if power.exists():
        return Rail(_label(chip, f"power{channel}", channel), lambda: _number(power) / 1e6)
    if volts.exists() and amperes.exists():
        label = _label(chip, f"in{channel}", channel)
        return Rail(label, lambda: _number(volts) * _number(amperes) / 1e6)
    return None


def _number(path: Path) -> int:
    return int(path.read_text())


def _label(chip: Path, stem: str, channel: int) -> str:
    for path in (chip / f"{stem}_label", chip / "name"):
        if path.exists():
            text = path.read_text("utf-8").strip()
            return text if path.name.endswith("_label") else f"{text} {channel}"
    return f"{chip.name} {channel}"


def find_cards() -> list[Rail]:
    """The GPUs whose power NVML reports; none without `nvidia-ml-py`, a driver or such a GPU.

    Most GPUs report an average over the last second or less.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
    except Exception:  # no package, no driver, another version of either: no power is shown
        return []
    rails = [Rail(f"GPU {index}", _card_watts(pynvml, index)) for index in range(count)]
    return [rail for rail in rails if _is_readable(rail)]


def _card_watts(nvml: Any, index: int) -> Callable[[], float]:
    def watts() -> float:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        return int(nvml.nvmlDeviceGetPowerUsage(handle)) / 1e3

    return watts


def _is_readable(rail: Rail) -> bool:
    try:
        rail.watts()
    except Exception:  # NVML's own errors, a binding without the function, an empty file
        return False
    return True


class PowerMeter:
    """Reads all rails and GPUs five times a second, in a thread of its own, inside a `with`."""

    def __init__(self, hwmon: Path = _HWMON) -> None:
        """Look for rails in a folder like /sys/class/hwmon, and for GPUs."""
        self._hwmon = hwmon
        self._rails = [*find_rails(hwmon), *find_cards()]
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

    def percentiles(self) -> dict[str, tuple[float, float, float]]:
        """Rail or GPU → p50, p95 and p99 in watts."""
        return {
            name: tuple(np.percentile(list(watts), (50, 95, 99)).tolist())
            for name, watts in self._watts.items()
            if watts
        }

    def lines(self) -> list[str]:
        """A table of percentiles in watts, or one line if this device reports no power."""
        if not self._rails:
            return [
                f"power: not reported by this device (no power or current in {self._hwmon}; no "
                "GPU found by NVML, which needs nvidia-ml-py)"
            ]
        head = f"{'watts':<14}{'p50':>9}{'p95':>9}{'p99':>9}"
        rows = self.percentiles().items()
        return [head, *(f"{name:<14}" + "".join(f"{w:>9.2f}" for w in row) for name, row in rows)]

    def _run(self) -> None:
        while True:
            for rail in self._rails:
                try:
                    self._watts[rail.name].append(rail.watts())
                except Exception:  # switched off for a moment; the thread must not end
                    continue
            if self._stop.wait(_PERIOD_S):
                return

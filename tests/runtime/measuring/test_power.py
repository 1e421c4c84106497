"""Power rails, read from a folder that looks like a Jetson's /sys/class/hwmon."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taidpt.runtime.measuring.power import PowerMeter, find_cards, find_rails


class NvmlError(Exception):
    """Like those of pynvml: derived from Exception alone."""


class Nvml(ModuleType):
    """A stub of pynvml: card 1 reports no power, card 2 has no handle."""

    def __init__(self, broken: str = "", count: int = 3) -> None:
        super().__init__("pynvml")
        self.broken, self.count, self.milliwatts = broken, count, 71_500

    def _answer(self, function: str, value: Any) -> Any:
        if function == self.broken:
            raise NvmlError(function)
        return value

    def nvmlInit(self) -> None:  # noqa: N802
        self._answer("init", None)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return int(self._answer("count", self.count))

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index == 2:
            raise NvmlError("handle")
        return int(self._answer("handle", index))

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        if handle == 1:
            raise NvmlError("not supported")
        return int(self._answer("power", self.milliwatts))


@pytest.fixture(autouse=True)
def no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the GPUs of this machine."""
    monkeypatch.setitem(sys.modules, "pynvml", None)


def write(folder: Path, **values: object) -> Path:
    folder.mkdir(parents=True)
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n")
    return folder


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    """An INA3221 with two rails in use and one that is off, and a chip with a power input."""
    write(
        tmp_path / "hwmon1",
        name="ina3221",
        in1_input=5000,
        curr1_input=1200,
        in1_label="VDD_IN",
        in2_input=4900,
        curr2_input=500,
        in2_label="VDD_CPU_GPU_CV",
        in3_input=5000,
        curr3_input="",
        in3_label="VDD_SOC",
    )
    write(tmp_path / "hwmon2", name="board", power1_input=2_500_000)
    write(tmp_path / "hwmon3", name="coretemp", temp1_input=40_000)
    return tmp_path


def test_rails_are_found_and_read(jetson: Path) -> None:
    watts = {rail.name: rail.watts() for rail in find_rails(jetson)}
    assert watts == pytest.approx({"VDD_IN": 6.0, "VDD_CPU_GPU_CV": 2.45, "board 1": 2.5})


def test_a_meter_reads_inside_a_with(jetson: Path) -> None:
    with PowerMeter(jetson) as meter:
        time.sleep(0.05)
        (jetson / "hwmon1" / "curr1_input").write_text("2400\n")
        time.sleep(0.5)
    head, *rows = meter.lines()
    assert head.split() == ["watts", "p50", "p95", "p99"]
    found = {row.rsplit(maxsplit=3)[0]: row.split()[-3:] for row in rows}
    assert found["VDD_IN"] == ["12.00", "12.00", "12.00"]
    assert found["VDD_CPU_GPU_CV"] == ["2.45"] * 3


def test_a_device_without_power_rails_gives_one_line(
    tmp_path: Path, bundle_path: Path, video_path: Path
) -> None:
    with PowerMeter(tmp_path / "nothing") as meter:
        pass
    [line] = meter.lines()
    assert line.startswith(f"power: not reported by this device (no power or current in {tmp_path}")
    command = [sys.executable, "-m", "taidpt", "tag", str(bundle_path), str(video_path)]
    done = subprocess.run([*command, "--profile"], capture_output=True, text=True, check=True)
    shown = done.stderr.splitlines()
    start = next(index for index, line in enumerate(shown) if line.startswith("milliseconds"))
    stages = [line.split()[0] for line in shown[start + 1 : start + 7]]
    assert stages == ["decode", "wait", "preprocess", "inference", "post", "sinks"]
    assert shown[start + 7].split()[0] in ("power:", "watts")


def test_readable_cards_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with PowerMeter(tmp_path) as meter:
        time.sleep(0.05)
        nvml.broken = "power"  # readings of a card that fails later are kept
        time.sleep(0.5)
    head, row = meter.lines()
    assert head.split() == ["watts", "p50", "p95", "p99"]
    assert row.split() == ["GPU", "0", *["71.50"] * 3]


@pytest.mark.parametrize("broken", ["init", "count", "handle", "power"])
def test_any_nvml_error_means_no_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(broken))
    assert find_cards() == []
    with PowerMeter(tmp_path) as meter:
        pass
    assert meter.lines()[0].startswith("power: not reported by this device")


def test_pynvml_without_a_driver_means_no_power(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pynvml")
    nvml = pytest.importorskip("pynvml")
    monkeypatch.setattr(nvml, "nvmlInit", nvml.nvmlDeviceGetCount)  # not initialised
    assert find_cards() == []
    assert callable(nvml.nvmlDeviceGetPowerUsage)

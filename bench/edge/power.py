"""Energy of a Jetson by its own sensors; other machines have none that this reads.

A Jetson module measures its rails with INA3221 chips. Linux shows them as hwmon files (mV and
mA), NVIDIA's `tegrastats` as text; the files come first, as they need no second process. NVIDIA's
start-up script `nvpower.sh` (Jetson Linux 36) lets the chip average 512 conversions and renew
its values every 430 ms: readings in between repeat the last one, so blocks shorter than seconds
have no energy of their own.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

INA3221 = Path("/sys/bus/i2c/drivers/ina3221")
THERMAL = Path("/sys/class/thermal")
FEWEST = 5

# Rails whose sum is the power that enters the module; the first that are all there count.
TOTALS = (
    # Orin NX, Orin Nano and Xavier NX: "VDD_IN is the total power of module",
    # forums.developer.nvidia.com/t/interpretation-of-jetson-nx-power-rail/200883.
    ("VDD_IN",),
    ("POM_5V_IN",),  # Jetson Nano
    # AGX Orin has no rail for the whole. These three are what tegrastats of Jetson Linux 36 shows;
    # that of 35 shows VDDQ_VDD2_1V8AO (memory) too, which is not added: the sums of both releases
    # mean the same. Rails: Jetson Linux Developer Guide, "Jetson Orin Nano Series, Jetson Orin NX
    # Series and Jetson AGX Orin Series", software-based power consumption modeling.
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    # AGX Xavier: SYS5V is "all parts power except DDR, CPU, GPU and CV",
    # forums.developer.nvidia.com/t/what-does-sys5v-power-mean-in-tegrastats/75574;
    # SOC is a rail of its own, as jetson_stats adds it.
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
)
# The value now, then the mean since the start; JetPack 7.2 prints a third, JetPack 4 no unit.
_RAIL = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]*) (\d+)(?:mW)?(?:/\d+(?:mW)?){1,2}(?!\S)")
_ZONE = re.compile(r"(?<!\S)([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C\b")
_NOT_CONNECTED = "NC"


class Sample(NamedTuple):
    """time: `time.monotonic`, s. watts: of the whole module. celsius: of its hottest zone."""

    time: float
    watts: float
    celsius: float | None


def parse(line: str) -> dict:
    """What a line of tegrastats says; what it lacks is empty or None.

    The format: Jetson Linux Developer Guide, appendix "tegrastats Utility", as in
    docs.nvidia.com/jetson/archives/l4t-archived/l4t-325 (AppendixTegraStats.html).

    Returns:
        rails: name -> W at this moment; celsius: zone -> °C, without zones that are switched off;
        gpu_percent; cpu_percent: of each core, None where it is off; ram_mib: used and there is.
    """
    gpu = re.search(r"\bGR3D_FREQ (\d+)%", line)
    ram = re.search(r"(?<!\S)RAM (\d+)/(\d+)MB", line)
    cores = re.search(r"(?<!\S)CPU \[([^\]]*)\]", line)
    loads = [re.match(r"(\d+)%", core) for core in cores[1].split(",")] if cores else []
    return {
        "rails": {n: int(mw) / 1000 for n, mw in _RAIL.findall(line) if n != _NOT_CONNECTED},
        "celsius": _zones((zone, float(value)) for zone, value in _ZONE.findall(line)),
        "gpu_percent": int(gpu[1]) if gpu else None,
        "cpu_percent": [int(load[1]) if load else None for load in loads],
        "ram_mib": [int(ram[1]), int(ram[2])] if ram else None,
    }


def _zones(readings) -> dict[str, float]:
    """Without what is off (-256), and PMIC, a constant 100 on the boards that name it."""
    return {z: c for z, c in readings if c > -200 and not z.upper().startswith("PMIC")}


def total(rails: dict[str, float]) -> float | None:
    """W that enter the module, None where it is not known which rails make it up; see TOTALS."""
    names = next((names for names in TOTALS if all(n in rails for n in names)), None)
    return sum(rails[n] for n in names) if names else None


def ina3221(root: Path | None = None) -> dict[str, tuple[Path, Path]]:
    """Rail -> its files of mV and of mA, under INA3221 or another `root`.

    Channels 1 to 3 are rails; a fourth current and a seventh voltage are sums:
    docs.kernel.org/hwmon/ina3221.html.
    """
    rails = {}
    for number in (1, 2, 3):
        for label in sorted((root or INA3221).glob(f"*/hwmon/hwmon*/in{number}_label")):
            name = (_text(label) or _NOT_CONNECTED).strip()
            if name != _NOT_CONNECTED:
                files = (f"in{number}_input", f"curr{number}_input")
                rails[name] = tuple(label.with_name(file) for file in files)
    return rails


def zones(root: Path | None = None) -> dict[str, float]:
    """Zone -> °C under THERMAL or another `root`; a zone that is off cannot be read."""
    readings = []
    for folder in sorted((root or THERMAL).glob("thermal_zone*")):
        name, value = _text(folder / "type"), _text(folder / "temp")
        if name and value:
            readings.append((name.strip().removesuffix("-thermal"), int(value) / 1000))
    return _zones(readings)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None


class Sampler:
    """Reads the sensors in the background while it is open.

        with Sampler() as sampler:
            ...
        energy(sampler.samples, start, end, ...)

    Attributes:
        source: "ina3221", "tegrastats", or None where there is neither: then no sample comes.
        samples: in order of time.
    """

    def __init__(self, interval: float = 0.1):
        """interval: s between two readings."""
        self.interval = interval
        self.samples: list[Sample] = []
        self._rails = ina3221()
        self._command = shutil.which("tegrastats")
        self._stop = threading.Event()
        self._thread = self._process = None
        self.source = None
        if total(dict.fromkeys(self._rails, 0.0)) is not None:
            self.source = "ina3221"
        elif self._command:
            self.source = "tegrastats"

    def __enter__(self) -> Sampler:
        if self.source == "tegrastats":
            milliseconds = str(max(1, round(1000 * self.interval)))
            # Its pipe breaks when we are killed, and it ends at its next line.
            self._process = subprocess.Popen(
                [self._command, "--interval", milliseconds],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
            )
        if self.source:
            read = {"ina3221": self._read_files, "tegrastats": self._read_lines}[self.source]
            self._thread = threading.Thread(target=read, daemon=True, name="power")
            self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._stop.set()
        if self._process:
            self._process.terminate()
            self._process.wait()
        if self._thread:
            self._thread.join()
        if self._process:
            self._process.stdout.close()

    def _read_files(self) -> None:
        while not self._stop.wait(self.interval):
            texts = {n: [_text(file) for file in files] for n, files in self._rails.items()}
            if all(text for pair in texts.values() for text in pair):
                rails = {n: int(mv) * int(ma) / 1e6 for n, (mv, ma) in texts.items()}
                self._keep(rails, zones())

    def _read_lines(self) -> None:
        for line in self._process.stdout:
            sample = parse(line)
            self._keep(sample["rails"], sample["celsius"])

    def _keep(self, rails: dict[str, float], celsius: dict[str, float]) -> None:
        watts = total(rails)
        if watts is not None:
            hottest = max(celsius.values(), default=None)
            self.samples.append(Sample(time.monotonic(), watts, hottest))


def mean_watts(samples: list[Sample], start: float, end: float) -> float | None:
    """Mean over time by the trapezoid rule, from the first sample in [start, end] to the last.

    None where fewer than FEWEST samples lie there.
    """
    inside = [s for s in samples if start <= s.time <= end]
    if len(inside) < FEWEST or inside[-1].time == inside[0].time:
        return None
    pairs = itertools.pairwise(inside)
    joules = sum((b.time - a.time) * (a.watts + b.watts) / 2 for a, b in pairs)
    return joules / (inside[-1].time - inside[0].time)


def energy(
    samples: list[Sample], start: float, end: float, idle_watts: float | None, inferences: int
) -> dict | None:
    """Energy of the inferences that ran from `start` to `end` (`time.monotonic`, s).

    Args:
        samples: of a Sampler.
        start, end: the block; nothing else may have run in it.
        idle_watts: `mean_watts` of the same machine at rest, None if it was not measured.
        inferences: how many ran, at least 1.

    Returns:
        watts (mean), idle_watts, joules_per_inference (all that the module took),
        joules_above_idle_per_inference (None without idle_watts), highest_celsius, samples (how
        many). None where fewer than FEWEST samples lie in the block.
    """
    watts = mean_watts(samples, start, end)
    if watts is None:
        return None
    inside = [s for s in samples if start <= s.time <= end]
    seconds = (end - start) / inferences
    above = None if idle_watts is None else (watts - idle_watts) * seconds
    return {
        "watts": watts,
        "idle_watts": idle_watts,
        "joules_per_inference": watts * seconds,
        "joules_above_idle_per_inference": above,
        "highest_celsius": max((s.celsius for s in inside if s.celsius is not None), default=None),
        "samples": len(inside),
    }

"""What machine this is, so that only like is compared with like; x86 or Jetson, standard library.

`fingerprint` is what stays as it is while nobody changes it: equal fingerprints, comparable
numbers. What varies from moment to moment is in `moment`.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import time
from importlib import metadata
from pathlib import Path

from bench.edge.engine import gpu_name

PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorflow",
    "jax",
    "torch",
    "keras",
)
_ROOT = Path("/")
_FREQUENCIES = "sys/devices/system/cpu/cpu[0-9]*/cpufreq"
# Share of all cores that others may take before it is worth a word.
_BUSY = 0.1


def fingerprint(root: Path = _ROOT) -> dict:
    """This machine and its settings, JSON values only; None where the machine does not tell.

    Args:
        root: where `proc`, `sys` and `etc` are.

    Returns:
        cpu, cores (usable by this process), cpu_quota (cores that the control group allows),
        cpu_governor, cpu_max_mhz, memory_gib, os, kernel, container, virtual, gpu, gpu_driver,
        cuda, board, l4t, jetpack, power_mode, gpu_governor, gpu_max_mhz, jetson_clocks,
        python, packages (name -> version).
    """
    release = _fields(root / "etc/os-release", "=")
    return {
        "cpu": _cpu(root),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_quota": _quota(root),
        "cpu_governor": "+".join(sorted(set(_all(root, f"{_FREQUENCIES}/scaling_governor"))))
        or None,
        "cpu_max_mhz": _most(_all(root, f"{_FREQUENCIES}/scaling_max_freq"), 1000),
        "memory_gib": _gib(_fields(root / "proc/meminfo", ":").get("MemTotal")),
        "os": release.get("PRETTY_NAME", "").strip('"') or None,
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "container": any((root / p).exists() for p in (".dockerenv", "run/.containerenv")),
        "virtual": "hypervisor" in _fields(root / "proc/cpuinfo", ":").get("flags", "").split(),
        **_gpu(),
        "cuda": _cuda(root),
        **_jetson(root),
        "python": platform.python_version(),
        "packages": {n: v for n in PACKAGES if (v := _version(n))},
    }


def moment(root: Path = _ROOT) -> dict:
    """What varies while nobody changes anything.

    Returns:
        load (mean number of runnable threads over a minute), free_gib, celsius (zone -> °C),
        cpu_mhz (of each core), gpu_mhz, gpu_celsius.
    """
    zones = {}
    for folder in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        value = _read(folder / "temp")
        if value and int(value) > -200_000:  # -256 °C: switched off
            zones[_read(folder / "type") or folder.name] = int(value) / 1000
    asked = _answer("nvidia-smi", "--query-gpu=temperature.gpu,clocks.sm", "--format=csv,noheader")
    numbers = re.findall(r"\d+", (asked or "").partition("\n")[0])
    celsius, mhz = map(int, numbers) if len(numbers) == 2 else (None, None)
    gpu = _devfreq(root)
    return {
        "load": os.getloadavg()[0],
        "free_gib": _gib(_fields(root / "proc/meminfo", ":").get("MemAvailable")),
        "celsius": zones,
        "cpu_mhz": [int(f) / 1000 for f in _all(root, f"{_FREQUENCIES}/scaling_cur_freq")],
        "gpu_mhz": _most([_read(gpu / "cur_freq")], 1e6) if gpu else mhz,
        "gpu_celsius": celsius,
    }


def differences(a: dict, b: dict) -> list[str]:
    """A sentence for every key in which two fingerprints differ."""
    a, b = _flat(a), _flat(b)
    return [
        f"{name} is {_shown(a.get(name))} in one and {_shown(b.get(name))} in the other."
        for name in sorted({*a, *b})
        if a.get(name) != b.get(name)
    ]


def peak_bytes(pid: int) -> int | None:
    """Most memory that a process has had resident (VmHWM); None where it has gone."""
    peak = _fields(Path(f"/proc/{pid}/status"), ":").get("VmHWM")
    return int(peak.split()[0]) * 1024 if peak else None


@functools.cache
def cuts_off_sums() -> bool:
    """Whether ONNX Runtime cuts off sums of products of uint8 and int8 on this processor.

    Without VNNI x86 adds them in pairs of 16 bits, which end at 32767 (ONNX Runtime's
    documentation, "Quantize ONNX Models": U8S8 and saturation). With weights rewritten as uint8 it
    does not, for some of the speed; where there is VNNI, that would cost speed alone.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return not flags & {"avx512_vnni", "avx_vnni"}


def busy(seconds: float = 0.5) -> str | None:
    """A sentence if other processes take the CPU right now, else None; waits for `seconds`."""
    before, own = _ticks(), sum(os.times()[:2])
    if before is None:
        return None
    start = time.monotonic()
    time.sleep(seconds)
    after, own = _ticks(), sum(os.times()[:2]) - own
    cores = (after - before) / os.sysconf("SC_CLK_TCK") - own
    return _sentence(cores / (time.monotonic() - start), os.cpu_count() or 1)


def _sentence(taken: float, cores: int) -> str | None:
    if taken < _BUSY * cores:
        return None
    return (
        f"Other work takes {taken:.1f} of this machine's {cores} cores right now: end it or wait, "
        "else it is measured too."
    )


def _ticks(path: Path = Path("/proc/stat")) -> int | None:
    """Clock ticks in which a CPU was not idle, since the start; what a hypervisor took counts.

    Fields: man7.org/linux/man-pages/man5/proc_stat.5.html. Guests' time is in user time already.
    """
    line = (_read(path) or "").partition("\n")[0].split()
    if len(line) < 9:
        return None
    user, nice, system, _, _, *interrupts_and_stolen = (int(x) for x in line[1:9])
    return user + nice + system + sum(interrupts_and_stolen)


def _cpu(root: Path) -> str | None:
    """x86 names its model in cpuinfo; of Arm's cores `lscpu` knows the names."""
    fields = _fields(root / "proc/cpuinfo", ":")
    listed = re.search(r"^Model name:\s*(.+)$", _answer("lscpu") or "", re.MULTILINE)
    named = fields.get("model name", "")
    # "ARMv8 Processor rev 1 (v8l)" is what Arm's kernels put there.
    if named and not (listed and named.startswith("ARMv")):
        return named
    return listed[1] if listed else fields.get("CPU part")


def _quota(root: Path) -> float | None:
    """Cores' worth of time that the control group allows; version 2's file, then version 1's."""
    group = re.search(r"^0::/(.*)$", _read(root / "proc/self/cgroup") or "", re.MULTILINE)
    files = [root / "sys/fs/cgroup" / (group[1] if group else "") / "cpu.max"]
    files.append(root / "sys/fs/cgroup/cpu.max")
    limit = next((text for file in files if (text := _read(file))), "")
    one = root / "sys/fs/cgroup/cpu"
    if not limit:
        limit = f"{_read(one / 'cpu.cfs_quota_us')} {_read(one / 'cpu.cfs_period_us')}"
    numbers = re.fullmatch(r"(\d+) (\d+)", limit)
    return int(numbers[1]) / int(numbers[2]) if numbers else None


def _gpu() -> dict:
    driver = _answer("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    name = gpu_name()
    driver = (driver or "").partition("\n")[0].strip()
    return {
        "gpu": None if name == "unknown-gpu" else name,
        "gpu_driver": driver if re.match(r"\d", driver) else None,
    }


def _cuda(root: Path) -> str | None:
    match = re.search(
        r'"cuda"\s*:\s*{[^}]*"version"\s*:\s*"([^"]+)"',
        _read(root / "usr/local/cuda/version.json") or "",
    )
    return match[1] if match else None


def _jetson(root: Path) -> dict:
    """What only a Jetson has."""
    l4t = re.search(
        r"R(\d+) \(release\), REVISION: ([\d.]+)", _read(root / "etc/nv_tegra_release") or ""
    )
    mode = re.search(r"Power Mode: (\S+)", (_answer("nvpmodel", "-q") or "") if l4t else "")
    package = ("--showformat=${Version}", "--show", "nvidia-jetpack")
    gpu = _devfreq(root) if l4t else None
    return {
        "board": (_read(root / "proc/device-tree/model") or "").strip("\0\n ") or None,
        "l4t": f"{l4t[1]}.{l4t[2]}" if l4t else None,
        "jetpack": _answer("dpkg-query", *package) if l4t else None,
        "power_mode": mode[1] if mode else None,
        "gpu_governor": _read(gpu / "governor") if gpu else None,
        "gpu_max_mhz": _most([_read(gpu / "max_freq")], 1e6) if gpu else None,
        "jetson_clocks": _locked(root, gpu) if gpu else None,
    }


def _locked(root: Path, gpu: Path) -> bool:
    """Whether clocks stand still, which is what the command jetson_clocks does: least is most."""
    least = [_read(gpu / "min_freq"), *_all(root, f"{_FREQUENCIES}/scaling_min_freq")]
    most = [_read(gpu / "max_freq"), *_all(root, f"{_FREQUENCIES}/scaling_max_freq")]
    return least == most


def _devfreq(root: Path) -> Path | None:
    """The GPU's clock: `17000000.gpu` on Orin, `.ga10b` or `.gv11b` before Jetson Linux 36."""
    names = ("*.gpu", "*.ga10b", "*.gv11b", "*.gpu-gpc*", "gpu-gpc*")
    folder = root / "sys/class/devfreq"
    return next((path for name in names for path in sorted(folder.glob(name))), None)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _all(root: Path, pattern: str) -> list[str]:
    return [text for path in sorted(root.glob(pattern)) if (text := _read(path))]


def _most(texts: list[str | None], unit: float) -> float | None:
    return max((int(text) / unit for text in texts if text), default=None)


def _gib(text: str | None) -> float | None:
    """Of the kB of /proc/meminfo, to a tenth: a kernel's own share varies."""
    return round(int(text.split()[0]) / 2**20, 1) if text else None


def _fields(path: Path, separator: str) -> dict[str, str]:
    """name -> value; the first of a name counts."""
    pairs = [line.partition(separator) for line in (_read(path) or "").splitlines()]
    return {name.strip(): value.strip() for name, _, value in reversed(pairs)}


def _answer(*command: str) -> str | None:
    """What a command prints; None where it is absent, slow or fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in values.items():
        part = (
            _flat(value, f"{prefix}{name} ") if isinstance(value, dict) else {prefix + name: value}
        )
        flat.update(part)
    return flat


def _shown(value) -> str:
    return "not there" if value is None else str(value)

"""The machine: this one as it is, and a Jetson's files as NVIDIA's releases have them."""

import json
import os
import stat
import subprocess
import sys

import pytest

from bench.edge import machine

# In the form of JetPack 6.2's.
RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n"
)


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def jetson(tmp_path, monkeypatch):
    """Root of an AGX Orin's files; the commands it has are on PATH."""
    clock = "sys/devices/system/cpu/cpu{}/cpufreq"
    gpu = "sys/class/devfreq/17000000.gpu"
    root = tmp_path / "root"
    cpus = {
        f"{clock.format(i)}/{name}": text
        for i in (0, 1)
        for name, text in {
            "scaling_governor": "schedutil\n",
            "scaling_min_freq": "729600\n",
            "scaling_max_freq": "2201600\n",
            "scaling_cur_freq": "1190400\n",
        }.items()
    }
    write(
        root,
        {
            **cpus,
            "etc/nv_tegra_release": RELEASE,
            "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n"
            "CPU part\t: 0xd42\n\nprocessor\t: 1\n",
            "proc/meminfo": "MemTotal:       64349024 kB\nMemAvailable:   52428800 kB\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "usr/local/cuda/version.json": '{"cuda" : {"name" : "SDK", "version" : "12.6.11"}}',
            f"{gpu}/governor": "nvhost_podgov\n",
            f"{gpu}/min_freq": "306000000\n",
            f"{gpu}/max_freq": "1300500000\n",
            f"{gpu}/cur_freq": "306000000\n",
            "sys/class/thermal/thermal_zone0/type": "gpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "45500\n",
            "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
            "sys/class/thermal/thermal_zone1/temp": "-256000\n",
        },
    )
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {
        "nvpmodel": "NV Power Mode: MODE_30W\n2",
        "dpkg-query": "6.2+b77",
        "lscpu": "Architecture: aarch64\nModel name:          Cortex-A78AE",
    }.items():
        (commands / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        (commands / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return root


def test_a_jetson_is_told_with_its_modes_and_clocks(jetson):
    found = machine.fingerprint(jetson)
    wanted = {
        "board": "NVIDIA Jetson AGX Orin Developer Kit",
        "l4t": "36.4.3",
        "jetpack": "6.2+b77",
        "power_mode": "MODE_30W",
        "cpu": "Cortex-A78AE",
        "cpu_governor": "schedutil",
        "cpu_max_mhz": 2201.6,
        "cpu_quota": 1.5,
        "gpu_governor": "nvhost_podgov",
        "gpu_max_mhz": 1300.5,
        "jetson_clocks": False,
        "cuda": "12.6.11",
        "memory_gib": 61.4,  # 64349024 / 2^20 = 61.368...
        "os": "Ubuntu 22.04.5 LTS",
        "virtual": False,
    }
    assert {name: found[name] for name in wanted} == wanted


def test_clocks_that_stand_still_are_seen(jetson):
    write(jetson, {"sys/class/devfreq/17000000.gpu/min_freq": "1300500000\n"})
    assert machine.fingerprint(jetson)["jetson_clocks"] is False, "the CPU's still vary"
    for cpu in (0, 1):
        path = f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_min_freq"
        write(jetson, {path: "2201600\n"})
    assert machine.fingerprint(jetson)["jetson_clocks"] is True


def test_what_varies_is_kept_apart(jetson):
    before = machine.fingerprint(jetson)
    moment = machine.moment(jetson)
    assert moment["celsius"] == {"gpu-thermal": 45.5}
    assert moment["cpu_mhz"] == [1190.4, 1190.4]
    assert moment["gpu_mhz"] == 306.0
    assert moment["free_gib"] == 50.0
    write(jetson, {"proc/meminfo": "MemTotal:       64349024 kB\nMemAvailable:   1048576 kB\n"})
    write(jetson, {"sys/class/devfreq/17000000.gpu/cur_freq": "1300500000\n"})
    assert machine.fingerprint(jetson) == before
    assert machine.moment(jetson)["free_gib"] == 1.0


def test_an_empty_machine_tells_nothing_and_breaks_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = machine.fingerprint(tmp_path)
    assert found["cpu"] is found["l4t"] is found["memory_gib"] is found["cpu_quota"] is None
    json.dumps([found, machine.moment(tmp_path)], allow_nan=False)


def test_version_1_control_groups_have_a_quota_too(tmp_path):
    folder = "sys/fs/cgroup/cpu"
    for quota, cores in (("50000", 0.5), ("-1", None)):
        files = {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": "100000\n"}
        write(tmp_path, files)
        assert machine.fingerprint(tmp_path)["cpu_quota"] == cores


def test_this_machine_equals_itself_and_imports_no_engine():
    script = (
        "import json, sys\nfrom bench.edge import machine\n"
        "found = [machine.fingerprint() for _ in 'ab']\n"
        "assert not {'onnxruntime', 'torch', 'keras', 'tensorflow'} & set(sys.modules)\n"
        "print(json.dumps(found, allow_nan=False))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    one, two = json.loads(done.stdout)
    assert machine.differences(one, two) == []
    assert one["packages"]["numpy"] == sys.modules["numpy"].__version__
    assert one["cores"] == len(os.sched_getaffinity(0))
    assert one["cpu"]


def test_differences_name_the_key_and_both_values():
    one = {"cpu": "A", "cores": 2, "packages": {"numpy": "1", "jax": "3"}}
    two = {"cpu": "A", "cores": 4, "packages": {"numpy": "2"}}
    assert machine.differences(one, two) == [
        "cores is 2 in one and 4 in the other.",
        "packages jax is 3 in one and not there in the other.",
        "packages numpy is 1 in one and 2 in the other.",
    ]


def test_peak_memory_is_the_most_a_process_ever_had():
    script = "x = b'x' * (200 << 20); del x; print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as other:
        other.stdout.readline()
        assert 200 << 20 <= machine.peak_bytes(other.pid) < 300 << 20
        other.stdin.write(b"\n")
    assert machine.peak_bytes(2**22 + 1) is None, "no such process"


def test_other_work_is_counted_in_cores(tmp_path):
    # user nice system idle iowait irq softirq steal guest guest_nice: all but idle and waiting.
    (tmp_path / "stat").write_text("cpu  100 10 30 9999 500 1 2 4 70 0\ncpu0 1 1 1 1\n")
    assert machine._ticks(tmp_path / "stat") == 100 + 10 + 30 + 1 + 2 + 4
    assert machine._sentence(0.39, 4) is None
    assert "0.5 of this machine's 4 cores" in machine._sentence(0.5, 4)


def test_a_busy_neighbour_is_noticed():
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert "Other work takes" in machine.busy(1.0)
    finally:
        busy.kill()
        busy.wait()


@pytest.mark.parametrize(
    ("processor", "flags", "cuts"),
    [
        ("x86_64", "avx2 fma", True),
        ("x86_64", "avx2 avx_vnni", False),
        ("x86_64", "avx512f avx512_vnni", False),
        ("aarch64", "asimd", False),
    ],
)
def test_sums_of_int8_are_cut_off_on_x86_without_vnni_alone(monkeypatch, processor, flags, cuts):
    monkeypatch.setattr(machine.platform, "machine", lambda: processor)
    monkeypatch.setattr(machine.Path, "read_text", lambda path: f"flags\t\t: {flags}\n")
    assert machine.cuts_off_sums.__wrapped__() == cuts

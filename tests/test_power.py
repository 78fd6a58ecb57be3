"""Energy: published lines of tegrastats, files as Linux lays them out, sums worked out by hand."""

import os
import stat
import time

import pytest

from bench.edge import power
from bench.edge.power import Sample

# Real lines. ORIN_5, ORIN_6, XAVIER, NX and XAVIER_NX: DataDog/datadog-agent (Apache-2.0),
# pkg/collector/corechecks/nvidia/jetson/jetson_test.go, its orinSample, r36Sample, agXSample,
# voltageUnitSample and xavierNxSample. NANO: henrygd/beszel (MIT), agent/gpu_test.go.
ORIN_5 = (
    "RAM 2448/62840MB (lfb 2x4MB) SWAP 0/31420MB (cached 0MB) CPU [0%@2201,0%@2201,0%@2201,"
    "0%@2201,0%@2201,0%@2201,0%@2201,0%@2201,0%@2201,0%@2201,0%@2201,0%@2201] GR3D_FREQ 0% "
    "cpu@42C soc2@37.843C soc0@39.187C gpu@37.75C tj@42C soc1@37.937C VDD_GPU_SOC 4940mW/4940mW "
    "VDD_CPU_CV 988mW/988mW VIN_SYS_5V0 4442mW/4442mW"
)
ORIN_6 = (
    "RAM 29114/30697MB (lfb 3x4MB)    SWAP 4915/15348MB (cached 1MB) CPU [3%@729,4%@729,0%@729,"
    "1%@729,0%@2201,100%@2201,1%@2201,0%@2201,100%@2201,0%@2201,0%@2201,0%@2201] EMC_FREQ 1%@2133 "
    "GR3D_FREQ 0%@[305,305] NVENC      off  NVDEC    off NVJPG off NVJPG1    off         VIC      "
    "  off          OFA           off          NVDLA0    off       NVDLA1     off          "
    "PVA0_FREQ off         APE           174        cpu@53.062C soc2@48.25C soc0@48.843C  "
    "gpu@47.812C tj@53.062C soc1@48.968C    VDD_GPU_SOC 3205mW/3205mW VDD_CPU_CV 4405mW/4405mW "
    "VIN_SYS_5V0 4767mW/4767mW"
)
NANO = (
    "06-18-2025 11:25:24 RAM 3452/7620MB (lfb 25x4MB) SWAP 1518/16384MB (cached 174MB) CPU "
    "[1%@1420,2%@1420,0%@1420,2%@1420,2%@729,1%@729] GR3D_FREQ 0% cpu@50.031C soc2@49.031C "
    "soc0@50C gpu@49.031C tj@50.25C soc1@50.25C VDD_IN 4824mW/4824mW VDD_CPU_GPU_CV 518mW/518mW "
    "VDD_SOC 1475mW/1475mW"
)
NX = (
    "RAM 6334/15388MB (lfb 1770x4MB) SWAP 491/7694MB (cached 0MB) CPU [6%@729,9%@729,5%@729,"
    "16%@729,off,off,off,off] EMC_FREQ 0%@2133 GR3D_FREQ 0%@611 VIC_FREQ 729 APE 174 CV0@45.812C "
    "CPU@47.937C SOC2@46.093C SOC0@46.968C CV1@46.406C GPU@45.875C tj@48.875C SOC1@48.875C "
    "CV2@45.75C VDD_IN 5299mW/5299mW VDD_CPU_GPU_CV 773mW/773mW VDD_SOC 1424mW/1424mW"
)
XAVIER = (
    "RAM 721/31927MB (lfb 7291x4MB) SWAP 0/15963MB (cached 0MB) CPU [2%@1190,0%@1190,0%@1190,"
    "0%@1190,off,off,off,off] EMC_FREQ 0%@665 GR3D_FREQ 0%@318 APE 150 MTS fg 0% bg 0% AO@37.5C "
    "GPU@37.5C Tdiode@40C PMIC@100C AUX@36C CPU@37.5C thermal@36.9C Tboard@37C GPU 0/0 CPU 311/311 "
    "SOC 932/932 CV 0/0 VDDRQ 621/621 SYS5V 1482/1482"
)
XAVIER_NX = (
    "RAM 4412/7772MB (lfb 237x4MB) SWAP 139/3886MB (cached 2MB) CPU [9%@1190,6%@1190,6%@1190,"
    "5%@1190,4%@1190,8%@1267] EMC_FREQ 10%@1600 GR3D_FREQ 62%@306 APE 150 MTS fg 0% bg 0% AO@41.5C "
    "GPU@43C PMIC@100C AUX@41.5C CPU@43.5C thermal@42.55C VDD_IN 4067/4067 VDD_CPU_GPU_CV 738/738 "
    "VDD_SOC 1353/1353"
)


@pytest.mark.parametrize(
    ("line", "watts", "hottest", "gpu", "cores"),
    [
        (ORIN_5, 4.940 + 0.988 + 4.442, 42.0, 0, 12),
        (ORIN_6, 3.205 + 4.405 + 4.767, 53.062, 0, 12),
        (NANO, 4.824, 50.25, 0, 6),
        (NX, 5.299, 48.875, 0, 8),
        # GPU + CPU + SOC + CV + VDDRQ + SYS5V; PMIC's constant 100 is no temperature.
        (XAVIER, 0.311 + 0.932 + 0.621 + 1.482, 40.0, 0, 8),
        (XAVIER_NX, 4.067, 43.5, 62, 6),
    ],
)
def test_a_published_line_gives_the_modules_power(line, watts, hottest, gpu, cores):
    found = power.parse(line)
    assert power.total(found["rails"]) == pytest.approx(watts)
    assert max(found["celsius"].values()) == hottest
    assert found["gpu_percent"] == gpu
    assert len(found["cpu_percent"]) == cores


def test_a_line_is_read_field_by_field():
    found = power.parse(NX)
    assert found["rails"] == {"VDD_IN": 5.299, "VDD_CPU_GPU_CV": 0.773, "VDD_SOC": 1.424}
    assert found["cpu_percent"] == [6, 9, 5, 16, None, None, None, None]
    assert found["ram_mib"] == [6334, 15388]
    assert found["celsius"]["GPU"] == 45.875


def test_what_is_not_connected_or_off_does_not_count():
    # AGX Orin with JetPack 5, from a public repository's documentation.
    line = (
        "GR3D_FREQ 0%@114 CV0@-256C CPU@43.5C VDD_GPU_SOC 4788mW/4788mW VDD_CPU_CV 798mW/798mW "
        "VIN_SYS_5V0 3842mW/3842mW NC 0mW/0mW VDDQ_VDD2_1V8AO 707mW/707mW NC 0mW/0mW"
    )
    found = power.parse(line)
    assert set(found["rails"]) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}
    assert found["celsius"] == {"CPU": 43.5}
    assert power.total(found["rails"]) == pytest.approx(4.788 + 0.798 + 3.842)


def test_a_third_number_of_a_newer_release_is_no_new_rail():
    line = "gpu@47.125C/47.5C VDD_GPU_SOC 4385mW/3787mW/4390mW VDD_CPU_CV 1196mW/897mW/1197mW"
    found = power.parse(line)
    assert found["rails"] == {"VDD_GPU_SOC": 4.385, "VDD_CPU_CV": 1.196}
    assert found["celsius"] == {"gpu": 47.125}


@pytest.mark.parametrize("line", ["", "RAM 1/2MB (lfb 1x4MB) SWAP 0/0MB", "VDD_GPU_SOC 4W/4W"])
def test_without_known_rails_there_is_no_total(line):
    assert power.total(power.parse(line)["rails"]) is None


# --- Files ------------------------------------------------------------------------------------


def channel(chip, number, label, mv, ma):
    (chip / f"in{number}_label").write_text(f"{label}\n")
    (chip / f"in{number}_input").write_text(f"{mv}\n")
    (chip / f"curr{number}_input").write_text(f"{ma}\n")


@pytest.fixture
def orin_nano(tmp_path, monkeypatch):
    """As Linux shows an Orin Nano's one chip: three rails, and a sum that is none."""
    chip = tmp_path / "ina3221" / "1-0040" / "hwmon" / "hwmon1"
    zone = tmp_path / "thermal" / "thermal_zone0"
    chip.mkdir(parents=True)
    zone.mkdir(parents=True)
    channel(chip, 1, "VDD_IN", 5000, 900)
    channel(chip, 2, "VDD_CPU_GPU_CV", 5000, 100)
    channel(chip, 3, "NC", 0, 0)
    channel(chip, 7, "sum of shunt voltages", 9000, 9000)
    (zone / "type").write_text("gpu-thermal\n")
    (zone / "temp").write_text("45500\n")
    off = tmp_path / "thermal" / "thermal_zone1"
    off.mkdir()
    (off / "type").write_text("cv0-thermal\n")
    monkeypatch.setattr(power, "INA3221", tmp_path / "ina3221")
    monkeypatch.setattr(power, "THERMAL", tmp_path / "thermal")
    return chip


def wait_for(sampler, samples: int) -> None:
    """Until there are so many, ten seconds at most."""
    end = time.monotonic() + 10
    while len(sampler.samples) < samples and time.monotonic() < end:
        time.sleep(0.01)


def test_the_chip_is_read_by_its_labels(orin_nano):
    assert set(power.ina3221()) == {"VDD_IN", "VDD_CPU_GPU_CV"}
    assert power.zones() == {"gpu": 45.5}
    with power.Sampler(interval=0.005) as sampler:
        assert sampler.source == "ina3221"
        wait_for(sampler, power.FEWEST)
    assert len(sampler.samples) >= power.FEWEST
    assert {(s.watts, s.celsius) for s in sampler.samples} == {(4.5, 45.5)}
    times = [s.time for s in sampler.samples]
    assert times == sorted(times)
    assert not sampler._thread.is_alive()


def test_a_chip_that_cannot_be_read_gives_no_samples(orin_nano):
    (orin_nano / "curr1_input").unlink()
    with power.Sampler(interval=0.005) as sampler:
        time.sleep(0.05)
    assert sampler.samples == []


@pytest.fixture
def tegrastats(tmp_path, monkeypatch):
    """A command of that name, which prints a published line every 10 ms."""
    monkeypatch.setattr(power, "INA3221", tmp_path / "none")
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "tegrastats"
    script.write_text(f'#!/bin/sh\nwhile :; do echo "{NANO}"; sleep 0.01; done\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_tegrastats_serves_where_no_file_does(tegrastats):
    with power.Sampler() as sampler:
        assert sampler.source == "tegrastats"
        wait_for(sampler, 3)
    assert sampler.samples[0].watts == 4.824
    assert sampler.samples[0].celsius == 50.25
    assert sampler._process.returncode is not None, "it has ended with its owner"


def test_other_machines_have_no_source(tmp_path, monkeypatch):
    monkeypatch.setattr(power, "INA3221", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with power.Sampler() as sampler:
        pass
    assert sampler.source is None
    assert sampler.samples == []


# --- Energy -----------------------------------------------------------------------------------

# 10 W for 2 s, a ramp to 20 W in 1 s, 20 W for 1 s: 20 + 15 + 20 = 55 J in 4 s.
RAMP = [
    Sample(100.0, 10.0, 40.0),
    Sample(101.0, 10.0, 41.0),
    Sample(102.0, 10.0, 44.5),
    Sample(103.0, 20.0, None),
    Sample(104.0, 20.0, 43.0),
]


def test_the_mean_is_the_trapezoids():
    assert power.mean_watts(RAMP, 100, 104) == pytest.approx(55 / 4)


def test_energy_of_an_inference_with_and_without_idle():
    found = power.energy([Sample(0.0, 99.0, 99.0), *RAMP], 100.0, 104.0, 5.0, 11)
    assert found == {
        "watts": pytest.approx(13.75),
        "idle_watts": 5.0,
        "joules_per_inference": pytest.approx(5.0),  # 55 J / 11
        "joules_above_idle_per_inference": pytest.approx(35 / 11),  # (55 - 4 s * 5 W) / 11
        "highest_celsius": 44.5,
        "samples": 5,
    }


def test_a_block_longer_than_its_samples_counts_in_full():
    # The samples' mean, 13.75 W, over 8 s and 10 inferences.
    assert power.energy(RAMP, 98, 106, None, 10)["joules_per_inference"] == pytest.approx(11.0)


def test_unknown_idle_leaves_the_difference_open():
    assert power.energy(RAMP, 100, 104, None, 1)["joules_above_idle_per_inference"] is None


def test_too_few_samples_are_no_measurement():
    assert power.energy(RAMP, 100, 103.5, 5.0, 10) is None
    assert power.energy([], 0, 1, None, 1) is None

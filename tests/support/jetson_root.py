"""The files of a Jetson in a folder: what its kernel tells, and a `tegrastats` that prints given lines."""

import stat
from collections.abc import Sequence
from pathlib import Path

ORIN_MODEL = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
JETPACK_62 = (
    "# R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64, "
    "DATE: Mon Jun 16 16:07:13 UTC 2025\n"
)
JETPACK_72 = (
    "# R39 (release), REVISION: 2.1, GCID: 46758480, BOARD: generic, EABI: aarch64, "
    "DATE: Fri Aug 7 05:54:22 AM UTC 2026\n# KERNEL_VARIANT: oot\n"
)


def write(path: Path, text: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    return path


def write_board(root: Path, *, release: str = JETPACK_62, model: str = ORIN_MODEL) -> Path:
    """An Orin Nano at rest in its 15 W mode, as its kernel shows it."""
    write(root / "etc/nv_tegra_release", release)
    write(root / "proc/device-tree/model", f"{model}\0")
    sensor = root / "sys/class/hwmon/hwmon1"
    write(sensor / "name", "ina3221")
    for number, (label, voltage_mv, current_ma) in enumerate(
        [("VDD_IN", 5016, 716), ("VDD_CPU_GPU_CV", 5008, 104), ("VDD_SOC", 5008, 225)], start=1
    ):
        write(sensor / f"in{number}_label", label)
        write(sensor / f"in{number}_input", voltage_mv)
        write(sensor / f"curr{number}_input", current_ma)
    write(sensor / "in7_label", "sum of shunt voltages")
    write(root / "sys/class/hwmon/hwmon3/name", "soctherm_oc")
    for number, count in ((1, 0), (2, 15), (3, 37)):
        write(root / f"sys/class/hwmon/hwmon3/oc{number}_event_cnt", count)
    # The fan turns and a governor caps the CPU: neither is throttling.
    for number, (kind, state) in enumerate([("cpufreq-cpu0", 3), ("pwm-fan", 2), ("gpu-throttle-alert", 0)]):
        write(root / f"sys/class/thermal/cooling_device{number}/type", kind)
        write(root / f"sys/class/thermal/cooling_device{number}/cur_state", state)
    for name, mhz in (("min_freq", 306), ("max_freq", 612), ("cur_freq", 306)):
        write(root / "sys/class/devfreq/17000000.gpu" / name, mhz * 1_000_000)
        write(root / "sys/class/devfreq/15340000.vic" / name, 115_200_000)
    for name, khz in (("scaling_min_freq", 729600), ("scaling_max_freq", 1510400), ("scaling_cur_freq", 960000)):
        write(root / "sys/devices/system/cpu/cpufreq/policy0" / name, khz)
    return root


def write_program(path: Path, lines: Sequence[str]) -> Path:
    """A shell script that is executed as it stands."""
    write(path, "\n".join(["#!/bin/sh", *lines]))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def write_tegrastats(path: Path, lines: Sequence[str]) -> Path:
    """A `tegrastats` that prints `lines` in turn for ever, one every 10 ms."""
    printed = path.with_suffix(".txt")
    printed.parent.mkdir(parents=True, exist_ok=True)
    printed.write_text("\n".join(lines) + "\n")
    return write_program(
        path, [f"while :; do while read -r line; do echo \"$line\"; sleep 0.01; done < '{printed}'; done"]
    )

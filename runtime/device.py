"""Facts of the machine that a figure is worthless without, and the name under which its profile is stored.

Everything is read from files and the running interpreter, on a Jetson also from commands that print. Nothing is
changed.
"""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeseg.classes import file_name_safe
from edgeseg.runtime.jetson.board_facts import board_facts
from edgeseg.runtime.threads import usable_cores

PROFILES_FOLDER = Path("profiles")
"""Where profiles are stored unless told otherwise, in the current folder."""
_PACKAGES = (
    "edgeseg",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "opencv-python-headless",
    "opencv-python",
    "tensorrt",
    "cuda-bindings",
    "pycuda",
    "torch",
    "torch-tensorrt",
)
_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "asimddp", "asimdhp", "i8mm")


def device_facts() -> dict[str, Any]:
    """What latencies on this machine depend on, JSON-ready; keys whose fact cannot be read are left out."""
    facts: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "instruction_sets": _instruction_sets(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "frequency_mhz": _frequency_mhz(),
        "load_average": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "memory_mb": _memory_mb("MemTotal"),
        "memory_available_mb": _memory_mb("MemAvailable"),
        "temperature_c": _temperature_c(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "virtual": _virtual(),
        "versions": versions(),
        "jetson": _first_line("/proc/device-tree/model"),
        "jetpack": _first_line("/etc/nv_tegra_release"),
        "gpus": gpu_models(),
        **board_facts(),
    }
    return {key: value for key, value in facts.items() if value not in (None, [], "")}


def device_name(device: str) -> str:
    """A name for this machine and `device` that is safe as a file name: board or CPU, cores, device string."""
    board = _first_line("/proc/device-tree/model")
    model = board if board and not device.startswith("cpu") else cpu_model()
    parts = [*model.replace("(R)", "").replace("(TM)", "").split(), f"{usable_cores()}-cores", device]
    return file_name_safe("-".join(parts)).lower()


def default_profile_path(device: str) -> Path:
    """Where `edgeseg profile` stores the profile of `device` on this machine."""
    return PROFILES_FOLDER / f"{device_name(device)}.json"


def versions(packages: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """Versions of those of `packages` that are installed; by default of what takes part in a step."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    """The CPU's name, as the kernel gives it."""
    for line in _lines("/proc/cpuinfo"):
        if line.lower().startswith(("model name", "hardware")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu_models() -> list[str]:
    """Names of the NVIDIA GPUs that the kernel driver knows."""
    models = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        models += [line.partition(":")[2].strip() for line in _lines(path) if line.startswith("Model")]
    return models


def resident_mb() -> float | None:
    """Memory of this process that is in RAM now, in MB; None where the system does not tell."""
    lines = _lines("/proc/self/statm")
    return int(lines[0].split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if lines else None


def memory_is_short() -> bool:
    """Whether less than a quarter of the machine's memory is available."""
    total, available = _memory_mb("MemTotal"), _memory_mb("MemAvailable")
    return total is not None and available is not None and available < total / 4


def _memory_mb(key: str) -> int | None:
    for line in _lines("/proc/meminfo"):
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) // 1000
    return None


def _instruction_sets() -> list[str]:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith(("flags", "Features")):
            flags = set(line.partition(":")[2].split())
            return [name for name in _INSTRUCTION_SETS if name in flags]
    return []


def _frequency_mhz() -> int | None:
    value = _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    return int(value) // 1000 if value and value.isdigit() else None


def _temperature_c() -> float | None:
    """The warmest thermal zone."""
    values = [_first_line(path) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(value) / 1000 for value in values if value and value.lstrip("-").isdigit()]
    return max(degrees, default=None)


def _virtual() -> str | None:
    """`container`, `virtual machine`, or None when there is no sign of either."""
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return "container"
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("flags"):
            return "virtual machine" if "hypervisor" in line.split() else None
    return None


def _first_line(path: Path | str) -> str | None:
    lines = _lines(path)
    return lines[0].strip("\0 \n") if lines else None


def _lines(path: Path | str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []

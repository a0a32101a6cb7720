"""What the kernel of a Jetson tells in its file systems: rails, over-current events, throttling, clocks.

Every function takes the root of the file system, and gives nothing where the files are not there.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from edgeseg.runtime.jetson.power_mode import ClockRange

ROOT = Path("/")
_GPU = re.compile(r"(\.(gpu|ga10b|gv11b|gp10b)|^gpu-gpc-\d+)$")
_OVER_CURRENT = re.compile(r"oc(\d+)_event_cnt$")
_RAIL = re.compile(r"in(\d+)_label$")


def is_jetson(root: Path = ROOT) -> bool:
    """Whether this is a Jetson, also within a container on one."""
    return (root / "etc/nv_tegra_release").is_file() or "jetson" in (
        _text(root / "proc/device-tree/model") or ""
    ).lower()


def rails_mw(root: Path = ROOT) -> dict[str, int]:
    """Power now by rail, from the INA3221 sensors."""
    rails = {}
    for sensor in _hwmons(root):
        for label in sorted(sensor.glob("in*_label")):
            found = _RAIL.match(label.name)
            name = _text(label)
            if found is None or not name or name == "NC" or name.startswith("sum of"):
                continue
            voltage_mv, current_ma = _number(sensor / f"in{found[1]}_input"), _number(sensor / f"curr{found[1]}_input")
            if voltage_mv is not None and current_ma is not None:
                rails[name] = round(voltage_mv * current_ma / 1000)
    return rails


def over_current_events(root: Path = ROOT) -> dict[str, int]:
    """How often the clocks were cut since the start of the board, by cause: `oc1` voltage too low, `oc2` mean current,
    `oc3` peak current (Orin)."""
    events = {}
    for sensor in _hwmons(root):
        for path in sorted(sensor.glob("oc*_event_cnt")):
            found, count = _OVER_CURRENT.match(path.name), _number(path)
            if found is not None and count is not None:
                events[f"oc{found[1]}"] = count
    return events


def throttle_alerts(root: Path = ROOT) -> list[str]:
    """Parts whose clocks are cut now because they, or the surface, are too hot.

    Fans, and the caps that governors set (`cpufreq-*`, `devfreq-*`), are cooling devices too, which work in normal
    times: they do not count.
    """
    alerts = []
    for device in sorted(_folders(root / "sys/class/thermal", "cooling_device*")):
        kind, state = _text(device / "type") or "", _number(device / "cur_state")
        if kind.endswith("-alert") and state:
            alerts.append(kind)
    return alerts


def gpu_clock(root: Path = ROOT) -> ClockRange | None:
    """The GPU's clock and the range of it that the power mode allows."""
    for device in sorted(_folders(root / "sys/class/devfreq", "*")):
        if _GPU.search(device.name):
            return _range(device, "min_freq", "max_freq", "cur_freq", unit=1e6)
    return None


def cpu_clocks(root: Path = ROOT) -> dict[str, ClockRange]:
    """Clock of each group of cores that share one, and the range of it that the power mode allows."""
    clocks = {}
    for policy in sorted(_folders(root / "sys/devices/system/cpu/cpufreq", "policy*")):
        found = _range(policy, "scaling_min_freq", "scaling_max_freq", "scaling_cur_freq", unit=1e3)
        if found is not None:
            clocks[policy.name.replace("policy", "cpu")] = found
    return clocks


def _range(folder: Path, least: str, most: str, now: str, *, unit: float) -> ClockRange | None:
    low, high, current = (_number(folder / name) for name in (least, most, now))
    if low is None or high is None or current is None:
        return None
    return ClockRange(low / unit, high / unit, current / unit)


def _hwmons(root: Path) -> Iterator[Path]:
    return _folders(root / "sys/class/hwmon", "hwmon*")


def _folders(parent: Path, pattern: str) -> Iterator[Path]:
    return (path for path in sorted(parent.glob(pattern)) if path.is_dir())


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.lstrip("-").isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return None

"""Lines of NVIDIA's `tegrastats`, read token by token: which tokens there are, and their order, differs by board, by
JetPack and by what is switched on.

A line of Orin Nano, JetPack 7.2:

    09-19-2026 13:33:02 RAM 2850/7486MB (lfb 33x4MB) CPU [2%@729,0%@729] EMC_FREQ 5%@665 GR3D_FREQ 0%@[305] NVDEC0 off
    APE 200 cpu@45.812C/45.812C gpu@46.843C/46.843C VDD_IN 3582mW/3582mW/3582mW VDD_SOC 1127mW/1127mW/1127mW
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
_SWAP = re.compile(r"\bSWAP (\d+)/(\d+)MB")
_CPU = re.compile(r"\bCPU \[([^\]]*)\]")
_CORE = re.compile(r"(\d+)%(?:@(\d+))?")
_ENGINE = r"\b{} (?:(\d+)%)?(?:@(?:\[([\d,]+)\]|(\d+)))?"
_GPU = re.compile(_ENGINE.format("GR3D_FREQ"))
_EMC = re.compile(_ENGINE.format("EMC_FREQ"))
_TEMPERATURE = re.compile(r"\b(\w+)@(-?\d+(?:\.\d+)?)C\b")
# Now, mean, and on JetPack 7 the highest one; JetPack 4 leaves the unit out.
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (-?\d+)(?:mW(?:/-?\d+mW)*|/-?\d+)(?![\w%])")

_OFF_C = -256.0
"""What the sensor of a part that is switched off tells."""
_NO_SENSORS = ("pmic",)
"""Zones that always tell the same temperature (50 or 100)."""
_NOT_CONNECTED = "NC"
_INPUTS = ("VDD_IN", "VIN", "POM_5V_IN")
"""Rails that all others hang on, by board: Orin Nano, Orin NX, Xavier NX and TX2; Thor; Nano."""
_FED_BY_ANOTHER = ("VDDQ_VDD2_1V8AO",)
"""AGX Orin: fed by VIN_SYS_5V0."""


@dataclass(frozen=True)
class CoreLoad:
    """One CPU core that is on."""

    percent: int
    mhz: int | None
    """None where the line does not tell."""


@dataclass(frozen=True)
class TegrastatsSample:
    """What one line tells; None or empty what it does not tell."""

    ram_used_mb: int
    ram_total_mb: int
    swap_used_mb: int | None
    cores: tuple[CoreLoad | None, ...]
    """One per core; None for one that is off."""
    gpu_percent: int | None
    """Thor does not tell."""
    gpu_mhz: tuple[int, ...]
    """One per graphics processing cluster; 0 for one that is power-gated."""
    emc_percent: int | None
    """Use of the memory's bandwidth."""
    temperatures_c: Mapping[str, float]
    """By zone, in lower case; sensors of parts that are switched off are left out."""
    rails_mw: Mapping[str, int]
    """Power now, by rail. AGX Orin's may be some below zero when nothing flows."""

    @property
    def hottest_c(self) -> float | None:
        """The warmest zone; zones without a true sensor do not count."""
        return max((value for name, value in self.temperatures_c.items() if name not in _NO_SENSORS), default=None)

    @property
    def total_mw(self) -> int | None:
        """Power of the board (of its module, on boards with VDD_IN); None where no rail is told."""
        return total_mw(self.rails_mw)


def parse_tegrastats(line: str) -> TegrastatsSample | None:
    """One line of `tegrastats`; None when it is no such line."""
    ram = _RAM.search(line)
    if ram is None:
        return None
    swap, cpu = _SWAP.search(line), _CPU.search(line)
    gpu_percent, gpu_mhz = _engine(_GPU, line)
    temperatures = {name.lower(): float(value) for name, value in _TEMPERATURE.findall(line)}
    return TegrastatsSample(
        ram_used_mb=int(ram[1]),
        ram_total_mb=int(ram[2]),
        swap_used_mb=None if swap is None else int(swap[1]),
        cores=() if cpu is None else tuple(_core(text) for text in cpu[1].split(",")),
        gpu_percent=gpu_percent,
        gpu_mhz=gpu_mhz,
        emc_percent=_engine(_EMC, line)[0],
        temperatures_c={name: value for name, value in temperatures.items() if value > _OFF_C},
        rails_mw={name: int(value) for name, value in _RAIL.findall(line) if name != _NOT_CONNECTED},
    )


def total_mw(rails_mw: Mapping[str, int]) -> int | None:
    """Power of the board: of the rail that feeds it, else the sum of those that are fed by no other one."""
    for name in _INPUTS:
        if name in rails_mw:
            return rails_mw[name]
    own = [value for name, value in rails_mw.items() if name not in _FED_BY_ANOTHER]
    return max(0, sum(own)) if own else None


def _core(text: str) -> CoreLoad | None:
    found = _CORE.fullmatch(text.strip())
    return None if found is None else CoreLoad(int(found[1]), int(found[2]) if found[2] else None)


def _engine(pattern: re.Pattern[str], line: str) -> tuple[int | None, tuple[int, ...]]:
    """Percentage and clocks in MHz of an engine: `3%`, `3%@306`, `3%@[306,306]` or `@[306,306,306]`."""
    found = pattern.search(line)
    if found is None:
        return None, ()
    clocks = found[2] or found[3] or ""
    return int(found[1]) if found[1] else None, tuple(int(value) for value in clocks.split(",") if value)

"""What `nvpmodel -q` and `jetson_clocks --show` print: the power mode, and the range that the clocks move in."""

import re
from dataclasses import dataclass

_MODE = re.compile(r"^NV Power Mode:\s*(\S+)", re.MULTILINE)
_NUMBER = re.compile(r"^\s*(\d+)\s*$", re.MULTILINE)
_CLOCK = re.compile(r"^(\w+)[: ].*?MinFreq=(\d+)\s+MaxFreq=(\d+)\s+CurrentFreq=(\d+)", re.MULTILINE)
_LOCKED_BY_OVERRIDE = re.compile(r"^(\w+)[: ].*\bFreqOverride=1\b", re.MULTILINE)


@dataclass(frozen=True)
class PowerMode:
    """A power mode: it caps clocks, and may switch cores off."""

    name: str
    """Such as `15W` or `MAXN_SUPER`."""
    number: int | None
    """What `nvpmodel -m` takes; another mode on another board."""

    def as_dict(self) -> dict[str, str | int | None]:
        """JSON-ready form."""
        return {"name": self.name, "number": self.number}


@dataclass(frozen=True)
class ClockRange:
    """A clock, and the range that its governor may choose from."""

    min_mhz: float
    max_mhz: float
    current_mhz: float
    is_overridden: bool = False
    """Whether it is held at its highest by an override (the memory's clock)."""

    @property
    def is_locked(self) -> bool:
        """Whether it cannot move, as after `jetson_clocks`."""
        return self.min_mhz == self.max_mhz or self.is_overridden

    def as_dict(self) -> dict[str, float | bool]:
        """JSON-ready form."""
        return {
            "min_mhz": round(self.min_mhz),
            "max_mhz": round(self.max_mhz),
            "current_mhz": round(self.current_mhz),
            "locked": self.is_locked,
        }


def parse_nvpmodel(text: str) -> PowerMode | None:
    """Output of `nvpmodel -q`; None when it names no mode."""
    mode = _MODE.search(text)
    if mode is None:
        return None
    number = _NUMBER.search(text, mode.end())
    return PowerMode(mode[1], None if number is None else int(number[1]))


def parse_jetson_clocks(text: str) -> dict[str, ClockRange]:
    """Output of `jetson_clocks --show`: name (`cpu0`, `GPU`, `EMC`, `DLA0_CORE`, ...) -> its range."""
    overridden = set(_LOCKED_BY_OVERRIDE.findall(text))
    ranges = {}
    for name, *frequencies in _CLOCK.findall(text):
        # Cores are told in kHz, all others in Hz.
        unit = 1e3 if name.startswith("cpu") else 1e6
        least, most, now = (int(value) / unit for value in frequencies)
        ranges[name] = ClockRange(least, most, now, name in overridden)
    return ranges

"""Names of files with the time in them, by which no recording meets an earlier one."""

import re
import time
from pathlib import Path

from edgeseg.errors import InputError

FIELDS = "YmdHMSjy"
"""Fields of `time.strftime` that names may hold: those that give digits alone."""
STAMP = "%Y%m%dT%H%M%S"


def has_time(name: str) -> bool:
    """Whether a name holds fields of the time."""
    return any(field in FIELDS for field in re.findall("%(.)", name))


def with_time(name: str) -> str:
    """The name with the time before its ending, unless it holds some already."""
    path = Path(name)
    return name if has_time(name) else str(path.with_name(f"{path.stem}-{STAMP}{path.suffix}"))


def at_time(name: str, wall_s: float) -> Path:
    """The path that a name stands for at a time.

    Args:
        name: `%Y %m %d %H %M %S %j %y` stand for local time, `%%` for a percent sign; in folders too.
        wall_s: seconds since the epoch.

    Raises:
        InputError: another field.
    """
    now = time.localtime(wall_s)

    def value(match: re.Match[str]) -> str:
        field = match[1]
        if field == "%":
            return "%"
        if not field or field not in FIELDS:
            raise InputError(
                f"in names of files %{' %'.join(FIELDS)} stand for the time | got %{field} in {name}: "
                "a percent sign is written %%"
            )
        return time.strftime(f"%{field}", now)

    return Path(re.sub("%(.?)", value, name)).expanduser()


def numbered(path: Path, number: int) -> Path:
    """`drive.mp4`, 2 -> `drive-2.mp4`."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}")

"""How many CPU threads a step may use."""

import os

from edgeseg.errors import InputError


def checked_threads(threads: int | None) -> int:
    """`threads`, or all usable cores for None.

    Raises:
        InputError: fewer than one, or far more than the machine has cores: each would be started and only take memory.
    """
    most = 4 * (os.cpu_count() or 1)
    if threads is not None and not 1 <= threads <= most:
        raise InputError(f"threads lies between 1 and {most} on this machine of {most // 4} cores | got {threads}")
    return threads or usable_cores()


def usable_cores() -> int:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""The state that a Jetson is in: power mode, clocks, over-current events. It is asked for, and never changed."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgeseg.runtime.jetson.board_files import ROOT, cpu_clocks, gpu_clock, is_jetson, over_current_events
from edgeseg.runtime.jetson.power_mode import parse_jetson_clocks, parse_nvpmodel

ASK_S = 5.0
"""How long nvpmodel or jetson_clocks may take to answer."""


def board_facts(root: Path = ROOT, ask: Callable[[Sequence[str]], str | None] | None = None) -> dict[str, Any]:
    """Power mode, clocks and over-current events of this Jetson, JSON-ready; empty where it is none.

    The ranges of the clocks come from `jetson_clocks --show` for root, which alone may ask it, else from the kernel.

    Args:
        ask: runs a command that changes nothing -> what it printed, None when it cannot be run.
    """
    if not is_jetson(root):
        return {}
    ask = ask or _ask
    mode = parse_nvpmodel(ask(("nvpmodel", "-q")) or "")
    clocks = cpu_clocks(root)
    if (gpu := gpu_clock(root)) is not None:
        clocks["GPU"] = gpu
    if os.geteuid() == 0:
        clocks |= parse_jetson_clocks(ask(("jetson_clocks", "--show")) or "")
    facts: dict[str, Any] = {
        "power_mode": None if mode is None else mode.as_dict(),
        "clocks": {name: clock.as_dict() for name, clock in clocks.items()},
        "over_current_events": over_current_events(root),
    }
    return {key: value for key, value in facts.items() if value not in (None, {})}


def _ask(command: Sequence[str]) -> str | None:
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout

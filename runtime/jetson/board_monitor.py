"""Watches a Jetson while something is measured: power, heat, and whether its clocks were cut.

`tegrastats` is asked where it is (it is not within a container), the sensors' files otherwise.
"""

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from types import TracebackType
from typing import Any

from edgeseg.runtime.jetson.board_files import (
    ROOT,
    cpu_clocks,
    gpu_clock,
    is_jetson,
    over_current_events,
    rails_mw,
    throttle_alerts,
)
from edgeseg.runtime.jetson.tegrastats import TegrastatsSample, parse_tegrastats, total_mw

PERIOD_S = 0.2
"""Between two looks at the board: it costs a core some per cent."""
END_S = 5.0
"""How long tegrastats may take to end."""
LOADED_PERCENT = 95
"""From this load on a governor sets the highest clock that it may."""
FULL_CLOCK = 0.9
"""Share of the highest clock below which a loaded part is said to be slowed down."""
LEAST_SAMPLES = 5
"""Fewer looks than this say nothing about a clock or about the energy of a step."""


@dataclass(frozen=True)
class BoardSample:
    """One look at the board."""

    at_s: float
    rails_mw: dict[str, int]
    stats: TegrastatsSample | None
    """None where there is no tegrastats."""


class BoardMonitor:
    """Looks at a Jetson every `PERIOD_S` between the start and the end of a `with` block, on a thread of its own.

    Args:
        root: of the file system.
        command: prints a line of tegrastats per look; None: there is none, the sensors' files are read.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        root: Path = ROOT,
        command: Sequence[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root, self._command, self._clock = root, command, clock
        self._samples: list[BoardSample] = []
        self._alerts: dict[str, None] = {}
        self._spans: dict[str, list[tuple[float, float]]] = {}
        self._gpu_mhz, self._cpu_mhz = _allowed_mhz(root)
        self._events_before: dict[str, int] = {}
        self._events_after: dict[str, int] = {}
        self._process: subprocess.Popen[str] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edgeseg-board", daemon=True)

    def __enter__(self) -> "BoardMonitor":
        self._events_before = over_current_events(self._root)
        if self._command is not None:
            with contextlib.suppress(OSError):
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._thread.join(END_S)
        self._events_after = over_current_events(self._root)

    def timed(self, turn: Callable[[str], list[float]]) -> Callable[[str], list[float]]:
        """`turn`, which gives the seconds of its last steps by name; when they were is remembered for `energy_mj`."""

        def remembering(name: str) -> list[float]:
            seconds = turn(name)
            end_s = self._clock()
            self._spans.setdefault(name, []).append((end_s - sum(seconds), end_s))
            return seconds

        return remembering

    def energy_mj(self, name: str, step_s: float) -> float | None:
        """Energy in mJ of the whole board during a step of `name` that takes `step_s`: its mean power while the timed
        steps ran. None when the board was looked at too seldom meanwhile, or tells no power."""
        spans = self._spans.get(name, ())
        within = [
            power
            for sample in self._samples
            if any(begin <= sample.at_s <= end for begin, end in spans)
            and (power := total_mw(sample.rails_mw)) is not None
        ]
        return round(fmean(within) * step_s, 3) if len(within) >= LEAST_SAMPLES else None

    def facts(self) -> dict[str, Any]:
        """What was seen, JSON-ready: temperatures and power while it was measured; what was not told is left out."""
        stats = [sample.stats for sample in self._samples if sample.stats is not None]
        hottest = [value for sample in stats if (value := sample.hottest_c) is not None]
        totals = [power for sample in self._samples if (power := total_mw(sample.rails_mw)) is not None]
        names = {name for sample in self._samples for name in sample.rails_mw}
        zones = {name for sample in stats for name in sample.temperatures_c}
        facts: dict[str, Any] = {
            "samples": len(self._samples),
            "hottest_c": max(hottest, default=None),
            "hottest_by_zone_c": {
                name: max(sample.temperatures_c[name] for sample in stats if name in sample.temperatures_c)
                for name in sorted(zones)
            },
            "mean_power_mw": round(fmean(totals)) if totals else None,
            "highest_power_mw": max(totals, default=None),
            "mean_power_by_rail_mw": {
                name: round(fmean(sample.rails_mw[name] for sample in self._samples if name in sample.rails_mw))
                for name in sorted(names)
            },
            "over_current_events": self._new_events(),
            "throttle_alerts": list(self._alerts),
        }
        return {key: value for key, value in facts.items() if value not in (None, {}, [])}

    def throttled(self) -> str | None:
        """Why the measured latencies are not those of this power mode; None when its clocks were never cut."""
        reasons = [f"{count} over-current events ({name})" for name, count in self._new_events().items()]
        reasons += [f"{name} was on" for name in self._alerts]
        stats = [sample.stats for sample in self._samples if sample.stats is not None]
        # What cuts a clock lowers its limit too: the higher one of before and after counts.
        gpu_mhz, cpu_mhz = _allowed_mhz(self._root)
        loaded = [
            min(clocks)
            for sample in stats
            if (sample.gpu_percent or 0) >= LOADED_PERCENT and (clocks := [mhz for mhz in sample.gpu_mhz if mhz])
        ]
        reasons += _slowed("the GPU", loaded, max(gpu_mhz, self._gpu_mhz))
        busy = [
            core.mhz
            for sample in stats
            for core in sample.cores
            if core is not None and core.mhz is not None and core.percent >= LOADED_PERCENT
        ]
        reasons += _slowed("the CPU", busy, max(cpu_mhz, self._cpu_mhz))
        return "; ".join(reasons) or None

    def _new_events(self) -> dict[str, int]:
        return {
            name: count - self._events_before.get(name, 0)
            for name, count in self._events_after.items()
            if count > self._events_before.get(name, 0)
        }

    def _watch(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            # The lines end when the process is ended.
            for line in self._process.stdout:
                stats = parse_tegrastats(line)
                if stats is not None:
                    self._note(dict(stats.rails_mw), stats)
            self._process.stdout.close()
        while not self._stop.wait(PERIOD_S):
            self._note(rails_mw(self._root), None)

    def _note(self, rails: dict[str, int], stats: TegrastatsSample | None) -> None:
        self._samples.append(BoardSample(self._clock(), rails, stats))
        self._alerts |= dict.fromkeys(throttle_alerts(self._root))


@contextlib.contextmanager
def watched_board(root: Path = ROOT) -> "Iterator[BoardMonitor | None]":
    """A monitor of this board while the block runs; None where it is no Jetson."""
    if not is_jetson(root):
        yield None
        return
    tegrastats = shutil.which("tegrastats")
    command = None if tegrastats is None else (tegrastats, "--interval", str(round(1e3 * PERIOD_S)))
    with BoardMonitor(root=root, command=command) as monitor:
        yield monitor


def _slowed(part: str, clocks_mhz: Sequence[int], allowed_mhz: float) -> list[str]:
    """That a part ran at a lower clock under full load than it may; empty when it did not."""
    if len(clocks_mhz) < LEAST_SAMPLES or (seen := median(clocks_mhz)) >= FULL_CLOCK * allowed_mhz:
        return []
    return [f"{part} ran at {seen:.0f} MHz under full load, its power mode allows {allowed_mhz:.0f}"]


def _allowed_mhz(root: Path) -> tuple[float, float]:
    """Highest clocks of the GPU and of the slowest group of cores that are allowed now; 0 where they are not told."""
    gpu, cpus = gpu_clock(root), cpu_clocks(root)
    return 0.0 if gpu is None else gpu.max_mhz, min((clock.max_mhz for clock in cpus.values()), default=0.0)

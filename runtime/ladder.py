"""The fallback ladder: which configuration of a bundle to run while latencies differ from the profile's (heat, load).

It decides and nothing else: `edgeseg.runtime.adaptive_session` loads and changes sessions.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeseg.bundle import Bundle
from edgeseg.errors import InputError
from edgeseg.metrics.rated_table import RatedTable
from edgeseg.runtime.loop_session import lead_s
from edgeseg.runtime.pick import Pick, rated_table
from edgeseg.runtime.schedule import LATEST_FRAME, Schedule

GAIN = 0.005
"""Predicted sLAmIoU that another configuration must add before the loop changes to it."""
WINDOW_S = 2.0
"""The steps of so long tell the latency of now."""
LEAST_STEPS = 5
"""Fewer say nothing."""
SETTLE_S = 2.5
"""So long another configuration must have been the better one without a break: longer than a short slowness is seen."""
PATIENCE_S, MOST_PATIENCE_S = 5.0, 300.0
"""So long after a change nothing slower is tried. It doubles, to the second figure, whenever a climb did not last as
long, and is the first one again after a climb that did."""
SLOWDOWNS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""What a configuration must be the best for, at one of them, to be a rung."""


@dataclass(frozen=True)
class Rung:
    """A configuration that the loop may change to."""

    name: str
    """Of the configuration."""
    table: RatedTable
    latencies_s: np.ndarray
    """float64 `(n,)`: its samples in the profile."""

    def predicted(self, latencies_s: Sequence[float] | np.ndarray, schedule: Schedule) -> float:
        """sLAmIoU of a loop whose steps take `latencies_s`."""
        return self.table.streaming(latencies_s, schedule.start_rule(self.table.camera_fps))

    @property
    def median_s(self) -> float:
        """Median of the samples."""
        return float(np.median(self.latencies_s))


@dataclass(frozen=True)
class Move:
    """A change that is due."""

    name: str
    reason: str


class Ladder:
    """Tells when another configuration is predicted to be better, from the latencies of the steps of now.

    What slows one configuration down slows the others down in proportion: each is predicted by the latencies measured
    now, times the ratio of its median to the running one's in the profile.

    `add` may be called from the loop's worker while another thread calls `decide`; nothing else is shared.

    Args:
        rungs: in any order, with different names.
        start: name of the configuration that runs at first.
        schedule: of the loop.
        clock: seconds.

    Raises:
        InputError: `start` is none of the rungs.
    """

    def __init__(
        self,
        rungs: Sequence[Rung],
        start: str,
        *,
        schedule: Schedule = LATEST_FRAME,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rungs = {rung.name: rung for rung in rungs}
        if start not in self._rungs:
            raise InputError(f"{start} is no rung of the ladder | known: {', '.join(self._rungs)}")
        self._schedule = schedule
        self._clock = clock
        # (when, latency): at 1,000 steps a second the newest of them.
        self._steps: deque[tuple[float, float]] = deque(maxlen=2000)
        self._running = start
        self._better: tuple[str, float] | None = None
        self._changed_at_s = clock()
        self._patience_s = PATIENCE_S
        self._climbed = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rungs, the fastest first."""
        return tuple(sorted(self._rungs, key=lambda name: self._rungs[name].median_s))

    def add(self, latency_s: float) -> None:
        """A step of the running configuration took so long."""
        self._steps.append((self._clock(), latency_s))

    def decide(self) -> Move | None:
        """The change that is due now, or None."""
        now_s = self._clock()
        latencies_s = [latency for at, latency in tuple(self._steps) if at > max(now_s - WINDOW_S, self._changed_at_s)]
        if len(latencies_s) < LEAST_STEPS:
            return None
        running = self._rungs[self._running]
        figures = {
            name: rung.predicted(np.array(latencies_s) * (rung.median_s / running.median_s), self._schedule)
            for name, rung in self._rungs.items()
            if rung.median_s <= running.median_s or now_s - self._changed_at_s >= self._patience_s
        }
        best = max(figures, key=lambda name: (figures[name], -self._rungs[name].median_s))
        if figures[best] < figures[self._running] + GAIN:
            self._better = None
            return None
        # Which of the better ones is the best may change meanwhile.
        since_s = now_s if self._better is None else self._better[1]
        self._better = best, since_s
        if now_s - since_s < SETTLE_S:
            return None
        median_s = float(np.median(latencies_s))
        return Move(
            best,
            f"steps of {self._running} take {1e3 * median_s:.1f} ms, {median_s / running.median_s:.2f} times the "
            f"profile's {1e3 * running.median_s:.1f} ms: predicted sLAmIoU {figures[best]:.3f}, {self._running} would "
            f"reach {figures[self._running]:.3f}",
        )

    def changed(self, name: str) -> None:
        """From now on configuration `name` runs."""
        now_s = self._clock()
        climbs = self._rungs[name].median_s > self._rungs[self._running].median_s
        if self._climbed and not climbs:
            failed = now_s - self._changed_at_s < self._patience_s
            self._patience_s = min(MOST_PATIENCE_S, 2 * self._patience_s) if failed else PATIENCE_S
        self._running, self._climbed, self._changed_at_s, self._better = name, climbs, now_s, None

    def leave_out(self, name: str) -> None:
        """Configuration `name`, which does not run, cannot be loaded."""
        self._rungs.pop(name, None)
        self._better = None


def rungs_of(bundle: Bundle, pick: Pick, schedule: Schedule) -> list[Rung]:
    """The configurations that a loop which began with `pick` may change to: the picked one, and each that is the best
    at one of `SLOWDOWNS`.

    They move labels as the picked one does, and anticipate as far: the rest of the loop stays as it is.
    """
    picked = pick.candidate
    ahead_s = lead_s(picked.configuration, pick.fps)
    excluded = {row.name for row in pick.rows if row.excluded}
    rungs = []
    for candidate in bundle.candidates((picked.compensation,)):
        entry, configuration = pick.profile.entry_of(candidate), candidate.configuration
        is_measured = candidate.table is not None and entry is not None and entry.samples_ms
        if not is_measured or candidate.name in excluded:
            continue
        assert entry is not None
        if lead_s(configuration, pick.fps) == ahead_s:
            rungs.append(Rung(configuration.name, rated_table(candidate, pick.fps), entry.latencies_s))
    useful = {picked.configuration.name}
    for slowdown in SLOWDOWNS:
        figures = {rung.name: rung.predicted(rung.latencies_s * slowdown, schedule) for rung in rungs}
        useful.add(max(figures, key=lambda name: figures[name]))
    return [rung for rung in rungs if rung.name in useful]

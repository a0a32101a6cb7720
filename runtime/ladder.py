"""The fallback ladder: which configuration of a bundle to run while latencies differ from the profile's (heat, load).

It decides and nothing else: `edgeseg.runtime.adaptive_session` loads and changes sessions.

A change is due when the sLAmIoU that it would have added, summed over the time since it would have been better, exceeds
what a needless change may cost (a CUSUM test). So a large loss is answered within a few steps, and a small one has to
last.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeseg.bundle import Bundle, Candidate
from edgeseg.errors import InputError
from edgeseg.metrics.rated_table import RatedTable
from edgeseg.runtime.loop_session import lead_s
from edgeseg.runtime.pick import Pick, rated_table
from edgeseg.runtime.race import CANNOT_WIN
from edgeseg.runtime.schedule import LATEST_FRAME, Schedule
from edgeseg.runtime.slowdown import ALIKE, STALE_S, Fall, Slowdown

GAIN = 0.003
"""Predicted sLAmIoU that another configuration must add before it counts as the better one."""
DRIFT = 0.001
"""What the sum forgets, so that noise does not add up."""
COST = 0.003
"""A faster configuration is changed to when it would have added so much sLAmIoU, times seconds."""
CAUTION = 2.0
"""A slower one when it would have added so many times more: it may turn out too slow."""
SOON_S = 4.0
"""A climb that is taken back earlier has failed."""
PATIENCE_S, MOST_PATIENCE_S = 2.5, 60.0
"""So long after it was left a configuration is taken to be as slow as it was then, unless the one that runs instead
recovers. It doubles, to the second figure, whenever a climb to it fails."""
SLOWDOWNS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""What a configuration must be the best for, at one of them, to be a rung."""
FEARED = 2.0
"""The slowdown that a loop which has just begun is prepared for: another program that wants the same core."""
_FACTORS = np.geomspace(SLOWDOWNS[0], SLOWDOWNS[-1], 43)
_LOG_FACTORS = np.log(_FACTORS)
"""Where predictions are made; between two of them, 9 % apart, they are interpolated."""


@dataclass(frozen=True)
class Rung:
    """A configuration that the loop may change to."""

    name: str
    """Of the configuration."""
    table: RatedTable
    latencies_s: np.ndarray
    """float64 `(n,)`: its samples in the profile."""

    def predicted(self, slowdown: float, schedule: Schedule) -> float:
        """sLAmIoU of a loop whose steps take `slowdown` times the profile's latencies."""
        return self.table.streaming(self.latencies_s * slowdown, schedule.start_rule(self.table.camera_fps))

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

    Each is predicted by its samples in the profile times the slowdown of now (`edgeseg.runtime.slowdown`), with the
    code that the pick and `edgeseg simulate` use. Used from one thread at a time.

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
        self._median_s = {rung.name: rung.median_s for rung in rungs}
        if start not in self._median_s:
            raise InputError(f"{start} is no rung of the ladder | known: {', '.join(self._median_s)}")
        self._curves = {
            rung.name: np.array([rung.predicted(factor, schedule) for factor in _FACTORS]) for rung in rungs
        }
        self._clock = clock
        self._falls: dict[str, Fall] = {}
        self._changed_at_s = clock()
        self._climbed = False
        # Of the running configuration; set anew when another one takes over.
        self._seen_at_s: float
        self._has_met: bool
        self._steady: float | None
        self._lost: dict[bool, float]
        self._figures_now: dict[str, float]
        self._run(start)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rungs, the fastest first."""
        return tuple(sorted(self._median_s, key=lambda name: self._median_s[name]))

    @property
    def next_faster(self) -> str | None:
        """What a slowdown of `FEARED` would make the loop change to; None where nothing would."""
        figures = self._figures(FEARED)
        best = self._best(figures)
        return best if self._is_faster(best) and figures[best] >= figures[self._running] + GAIN else None

    def add(self, latency_s: float) -> None:
        """A step of the running configuration took so long."""
        now_s = self._clock()
        took_s = now_s - self._seen_at_s
        if took_s - latency_s > STALE_S:
            # No frames came: whatever happened meanwhile, nobody was served worse for it.
            self._run(self._running)
            took_s = latency_s
        self._seen_at_s = now_s
        self._slowdown.add(latency_s / self._median_s[self._running])
        if (beside := self._slowdown.at_first) is not None and not self._has_met:
            self._has_met = True
            self._falls = {name: fall.met(beside) for name, fall in self._falls.items()}
        if (factor := self._slowdown.now) is not None:
            self._figures_now = self._figures(factor)
            self._weigh(self._figures_now, took_s)
            if self._lost[True] == 0:
                self._steady = factor

    def decide(self) -> Move | None:
        """The change that is due now, or None."""
        factor, figures = self._slowdown.now, self._figures_now
        if factor is None or all(lost < self._limit(is_faster=each) for each, lost in self._lost.items()):
            return None
        best = self._best(figures)
        is_faster = self._is_faster(best)
        if self._lost[is_faster] < self._limit(is_faster=is_faster) or figures[best] < figures[self._running] + GAIN:
            return None
        profiled_ms = 1e3 * self._median_s[self._running]
        again = ""
        fall = self._falls.get(best)
        if fall is not None and not is_faster and fall.factor(factor) > ALIKE * factor:
            again = f"; left for being slow {self._clock() - fall.at_s:.1f} s ago, it is tried again"
        return Move(
            best,
            f"steps of {self._running} take {factor * profiled_ms:.1f} ms, {factor:.2f} times the profile's "
            f"{profiled_ms:.1f} ms: predicted sLAmIoU {figures[best]:.3f}, {self._running} would reach "
            f"{figures[self._running]:.3f}{again}",
        )

    def changed(self, name: str) -> None:
        """From now on configuration `name` runs."""
        now_s, before = self._clock(), self._running
        climbs = not self._is_faster(name)
        if not climbs:
            self._remember_fall(before, now_s)
        self._falls = {key: fall.met(None) for key, fall in self._falls.items()}
        self._climbed, self._changed_at_s = climbs, now_s
        self._run(name)

    def leave_out(self, name: str) -> None:
        """Configuration `name`, which does not run, cannot be loaded."""
        for known in (self._median_s, self._curves, self._falls, self._figures_now):
            known.pop(name, None)

    def _run(self, name: str) -> None:
        """Configuration `name` runs, and nothing is known of its steps yet."""
        self._running = name
        self._slowdown = Slowdown()
        self._has_met = False
        self._steady = None
        self._figures_now = {}
        self._lost = {True: 0.0, False: 0.0}
        self._seen_at_s = self._clock()

    def _is_faster(self, name: str) -> bool:
        return self._median_s[name] < self._median_s[self._running]

    def _limit(self, *, is_faster: bool) -> float:
        return COST if is_faster else CAUTION * COST

    def _best(self, figures: dict[str, float]) -> str:
        """Of two alike the faster one."""
        return max(figures, key=lambda name: (figures[name], -self._median_s[name]))

    def _figures(self, factor: float) -> dict[str, float]:
        """Predicted sLAmIoU of each rung while the running one has that slowdown."""
        return {
            name: float(np.interp(math.log(self._factor_of(name, factor)), _LOG_FACTORS, curve))
            for name, curve in self._curves.items()
        }

    def _factor_of(self, name: str, running: float) -> float:
        """What is slower than one that was left for being slow suffers no less."""
        now_s, median_s = self._clock(), self._median_s[name]
        held = [
            fall.factor(running)
            for left, fall in self._falls.items()
            if left != self._running and self._median_s[left] <= median_s and now_s < fall.until_s
        ]
        return max([running, *held]) if name != self._running else running

    def _weigh(self, figures: dict[str, float], took_s: float) -> None:
        """Add what the last `took_s` have lost against the best faster and the best slower rung."""
        for is_faster, lost in self._lost.items():
            others = [
                figure
                for name, figure in figures.items()
                if name != self._running and self._is_faster(name) == is_faster
            ]
            gain = max(others, default=-1.0) - figures[self._running] - DRIFT
            self._lost[is_faster] = min(max(0.0, lost + took_s * gain), self._limit(is_faster=is_faster))

    def _remember_fall(self, name: str, now_s: float) -> None:
        earlier = self._falls.get(name)
        failed = earlier is not None and self._climbed and now_s - self._changed_at_s < SOON_S
        patience_s = min(MOST_PATIENCE_S, 2 * earlier.patience_s) if earlier and failed else PATIENCE_S
        slow = self._slowdown.now or 1.0
        before = self._steady or (earlier.before if earlier else 1.0)
        self._falls[name] = Fall(now_s, patience_s, before=min(before, slow), slow=slow)


def rungs_of(bundle: Bundle, pick: Pick, schedule: Schedule) -> list[Rung]:
    """The configurations that a loop which began with `pick` may change to: the picked one, and each that is the best
    at one of `SLOWDOWNS`.

    They move labels as the picked one does, and anticipate as far: the rest of the loop stays as it is. What was not
    measured with that compensation, because it could not win when nothing slows it down, is predicted: it takes its
    network's latencies, and what moving labels adds to the picked one's.
    """
    picked = pick.candidate
    ahead_s = lead_s(picked.configuration, pick.fps)
    excluded = {row.name for row in pick.rows if row.excluded}
    rungs = []
    for candidate in bundle.candidates((picked.compensation,)):
        configuration, latencies_s = candidate.configuration, _latencies_s(candidate, pick)
        if candidate.table is None or latencies_s is None or excluded & {candidate.name, configuration.name}:
            continue
        if lead_s(configuration, pick.fps) == ahead_s:
            rungs.append(Rung(configuration.name, rated_table(candidate, pick.fps), latencies_s))
    useful = {picked.configuration.name}
    for slowdown in SLOWDOWNS:
        figures = {rung.name: rung.predicted(slowdown, schedule) for rung in rungs}
        useful.add(max(figures, key=lambda name: figures[name]))
    return [rung for rung in rungs if rung.name in useful]


def _latencies_s(candidate: Candidate, pick: Pick) -> np.ndarray | None:
    """float64 `(n,)`: measured, or predicted; None where it cannot run or nothing is known."""
    entry, network = pick.profile.entry_of(candidate), pick.profile.entry(candidate.configuration.name)
    if entry is not None and entry.samples_ms:
        return entry.latencies_s
    is_unusable = entry is not None and not (entry.skipped or "").startswith(CANNOT_WIN)
    if is_unusable or network is None or not network.samples_ms:
        return None
    return network.latencies_s + _moving_s(pick)


def _moving_s(pick: Pick) -> float:
    """What moving labels adds to a step of the picked configuration: by the medians, and never less than nothing."""
    moved, network = pick.profile.entry_of(pick.candidate), pick.profile.entry(pick.configuration.name)
    if moved is None or network is None or not network.samples_ms:
        return 0.0
    return max(0.0, float(np.median(moved.latencies_s) - np.median(network.latencies_s)))

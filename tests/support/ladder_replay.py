"""A camera loop over given latencies, with or without the fallback ladder: no network, no clock, no noise."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeseg.metrics.streaming import Publication, streaming_offsets
from edgeseg.runtime.ladder import Ladder, Move, Rung

LOAD_S = 0.1
"""From the wish for a configuration that is not loaded to its first step."""


class Clock:
    """Seconds that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True)
class Replayed:
    """What a loop reached."""

    slamiou: float
    """Mean of the tables' entries that its reader found at the camera's frames."""
    moves: tuple[tuple[float, Move], ...]
    """When the loop changed, in seconds since its first frame, and why."""


def replay(
    rungs: Sequence[Rung],
    start: str,
    latency_s: Callable[[str, float], float],
    *,
    seconds: float,
    ladder: Ladder | None = None,
    clock: Clock | None = None,
) -> Replayed:
    """A loop that takes the newest frame whenever it is free.

    Args:
        latency_s: name of a configuration and the time at which a step of it starts -> what the step takes.
        ladder: on `clock`; None: `start` runs to the end.
    """
    clock = clock or Clock()
    tables = {rung.name: rung.table for rung in rungs}
    period_s, begin_s = 1.0 / rungs[0].table.camera_fps, clock.now_s
    running, standby = start, None if ladder is None else ladder.next_faster
    loaded_at_s, taken, free_s = 0.0, -1, 0.0
    log: list[tuple[float, int, str]] = []
    moves: list[tuple[float, Move]] = []
    while free_s < seconds:
        taken = max(int(free_s / period_s + 1e-9), taken + 1)
        start_s = max(free_s, taken * period_s)
        move = None if ladder is None else ladder.decide()
        if ladder is not None and move is not None:
            if move.name != standby:
                standby, loaded_at_s = move.name, start_s + LOAD_S
            elif start_s >= loaded_at_s:
                running, standby = standby, running
                ladder.changed(running)
                moves.append((start_s, move))
        took_s = latency_s(running, start_s)
        free_s = start_s + took_s
        log.append((free_s, taken, running))
        if ladder is not None:
            clock.now_s = begin_s + free_s
            ladder.add(took_s)
    captured_s = [index * period_s for index in range(int(seconds / period_s))]
    read = streaming_offsets([Publication(at_s, index) for index, (at_s, _, _) in enumerate(log)], captured_s)
    found = Counter((log[entry][2], frame - log[entry][1]) for frame, entry in enumerate(read) if entry is not None)
    total = sum(times * tables[name].lamiou(age * period_s) for (name, age), times in found.items())
    return Replayed(total / found.total(), tuple(moves))

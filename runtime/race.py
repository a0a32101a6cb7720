"""In which order configurations are measured, and which ones need no more measuring because they can no longer win.

All configurations take turns, a few steps each, round after round, so that heat, clocks and load meet all alike. One
drops out as soon as the LAmIoU that its fastest step so far allows (the best table entry at that delay or a later one)
is below the best expected LAmIoU so far. When a leader's figure falls later on, those that dropped out against the
higher one come back: at the end nobody has dropped out who could still win.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeseg.metrics.rated_table import RatedTable


@dataclass(frozen=True)
class Contender:
    """What the race knows of a configuration before it runs."""

    name: str
    macs: float
    """Multiply-accumulates of one steady step, for a guess of the latency; 0 when unknown."""
    table: RatedTable | None
    """None without accuracy: it is measured in full, since nothing says that it cannot win."""


@dataclass(frozen=True)
class Outcome:
    """Samples of one contender, in seconds, in the order of measurement, and why they stopped early, if they did."""

    samples_s: tuple[float, ...]
    skipped: str | None


class Race:
    """Measures `contenders` by calling `turn` until each has `samples` samples or cannot win.

    Args:
        contenders: names are unique.
        turn: name -> latencies in seconds of a few more steps of it, at least one.
        samples: samples of a contender that stays to the end.
        exhaustive: nobody drops out.
        progress: called after each turn with the name, and the share of the work that is done.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        turn: Callable[[str], Sequence[float]],
        *,
        samples: int,
        exhaustive: bool = False,
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        self._contenders = {entry.name: entry for entry in contenders}
        self._turn = turn
        self._samples = samples
        self._exhaustive = exhaustive
        self._progress = progress or (lambda name, share: None)
        self._taken: dict[str, list[float]] = {name: [] for name in self._contenders}
        self._skipped: dict[str, str] = {}

    def run(self) -> dict[str, Outcome]:
        """Outcome of each contender, in the order in which they were first measured."""
        order = self._first_round()
        while True:
            running = [name for name in order if name not in self._skipped and not self._is_full(name)]
            if not running and not self._call_back():
                break
            for name in running:
                if name not in self._skipped:
                    self._measure(name)
        return {name: Outcome(tuple(self._taken[name]), self._skipped.get(name)) for name in order}

    def _first_round(self) -> list[str]:
        """Everyone's first turn, the most promising next: skipping pays when the bar is set high early."""
        order: list[str] = []
        remaining = dict(self._contenders)
        while remaining:
            name = self._most_promising(remaining) if order else min(remaining, key=lambda key: remaining[key].macs)
            del remaining[name]
            order.append(name)
            self._measure(name)
        return order

    def _most_promising(self, remaining: Mapping[str, Contender]) -> str:
        """By LAmIoU at a latency guessed from MACs, at the best rate seen so far; the small one first where unknown."""
        rates = [
            min(samples) / self._contenders[name].macs
            for name, samples in self._taken.items()
            if samples and self._contenders[name].macs > 0
        ]
        rate = min(rates, default=0.0)

        def promise(name: str) -> tuple[float, float]:
            entry = remaining[name]
            return (entry.table.lamiou(entry.macs * rate) if entry.table else 0.0, -entry.macs)

        return max(remaining, key=promise)

    def _measure(self, name: str) -> None:
        self._taken[name].extend(self._turn(name))
        if not self._exhaustive:
            self._drop_losers()
        self._progress(name, self._share_done())

    def _drop_losers(self) -> None:
        best, leader = self._best()
        for name, samples in self._taken.items():
            if not samples or name in self._skipped or self._is_full(name):
                continue
            bound = self._bound(name)
            if bound is not None and bound < best:
                self._skipped[name] = (
                    f"cannot win: its fastest step, {1e3 * min(samples):.1f} ms, allows {bound:.3f} at most, "
                    f"{leader} reaches {best:.3f}"
                )

    def _call_back(self) -> bool:
        """Bring back those that dropped out against a figure which did not last; whether there were any."""
        best, _ = self._best()
        returning = [name for name in self._skipped if (self._bound(name) or 0.0) >= best]
        for name in returning:
            del self._skipped[name]
        return bool(returning)

    def _best(self) -> tuple[float, str]:
        """Highest expected LAmIoU among those that have not dropped out, and whose it is; -1 when there is none."""
        expected = {
            name: table.expected(samples)
            for name, samples in self._taken.items()
            if samples and name not in self._skipped and (table := self._contenders[name].table) is not None
        }
        leader = max(expected, key=lambda name: expected[name], default="")
        return expected.get(leader, -1.0), leader

    def _bound(self, name: str) -> float | None:
        table = self._contenders[name].table
        return table.best_from(min(self._taken[name])) if table else None

    def _is_full(self, name: str) -> bool:
        return len(self._taken[name]) >= self._samples

    def _share_done(self) -> float:
        done = sum(
            self._samples if name in self._skipped else min(len(samples), self._samples)
            for name, samples in self._taken.items()
        )
        return done / (self._samples * len(self._taken))

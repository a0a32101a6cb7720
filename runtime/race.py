"""In which order candidates are measured, and which ones need no more measuring because they can no longer win.

All candidates take turns, a few steps each, round after round, so that heat, clocks and load meet all alike. One drops
out as soon as the LAmIoU that its fastest step so far allows (the best table entry at that delay or a later one) is
below the best predicted sLAmIoU so far. One without compensation is held against the best without: that is what the
winner is compared with, and what those need who cannot move labels.

The bound holds for every statistic of a pick: labels of a step that takes l are never less than ceil(l / d) frames old
when they are read, so each age that is averaged over has an entry of the table at the fastest step's offset or later.

Labels that are moved take the network's step and more. So the fastest step of the same configuration without
compensation bounds a candidate that was never run: one that cannot win even so does not take its first turn.

When a leader's figure falls later on, those that dropped out against the higher one come back: at the end nobody has
dropped out who could still win.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeseg.metrics.rated_table import RatedTable

CANNOT_WIN = "cannot win"
"""How the reason of one begins that dropped out, as against one that cannot be used."""


@dataclass(frozen=True)
class Contender:
    """What the race knows of a candidate before it runs."""

    name: str
    macs: float
    """Multiply-accumulates of one steady step, for a guess of the latency; 0 when unknown."""
    table: RatedTable | None
    """None without accuracy: it is measured in full, since nothing says that it cannot win."""
    sibling: str | None = None
    """The contender whose step is a part of this one's: the same configuration without compensation."""


@dataclass(frozen=True)
class Outcome:
    """Samples of one contender, in seconds, in the order of measurement, and why they stopped early, if they did."""

    samples_s: tuple[float, ...]
    skipped: str | None


class Race:
    """Measures `contenders` by calling `turn` until each has `samples` samples or cannot win.

    Args:
        contenders: names are unique, and a sibling is one of them.
        turn: name -> latencies in seconds of a few more steps of it, at least one.
        samples: samples of a contender that stays to the end.
        exhaustive: nobody drops out.
        fault: name and whether it is measured in full -> why it cannot be picked, whatever its labels are worth.
        progress: called after each turn with the name, and the share of the work that is done.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        turn: Callable[[str], Sequence[float]],
        *,
        samples: int,
        exhaustive: bool = False,
        fault: Callable[[str, bool], str | None] | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        self._contenders = {entry.name: entry for entry in contenders}
        self._turn = turn
        self._samples = samples
        self._exhaustive = exhaustive
        self._fault = fault or (lambda name, is_full: None)
        self._progress = progress or (lambda name, share: None)
        self._taken: dict[str, list[float]] = {name: [] for name in self._contenders}
        self._skipped: dict[str, str] = {}
        self._faulty: set[str] = set()
        self._figures: dict[str, float] = {}

    def run(self) -> dict[str, Outcome]:
        """Outcome of each contender, in the order in which they were first measured or seen not to need it."""
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
            name = self._most_promising(remaining) if order else min(remaining, key=lambda key: self._size(key))
            del remaining[name]
            order.append(name)
            if not self._exhaustive:
                self._drop_losers(name)
            if name not in self._skipped:
                self._measure(name)
        return order

    def _size(self, name: str) -> tuple[float, bool]:
        entry = self._contenders[name]
        return entry.macs, entry.sibling is not None

    def _most_promising(self, remaining: Mapping[str, Contender]) -> str:
        """By LAmIoU at the sibling's latency, else at one guessed from MACs; the small one first where unknown.

        One without compensation promises what the best of its family does, and goes before them.
        """
        rates = [
            min(samples) / self._contenders[name].macs
            for name, samples in self._taken.items()
            if samples and self._contenders[name].macs > 0
        ]
        rate = min(rates, default=0.0)

        def promise(entry: Contender) -> float:
            seen = self._taken[entry.sibling] if entry.sibling is not None else []
            return entry.table.lamiou(min(seen) if seen else entry.macs * rate) if entry.table else 0.0

        promises = {name: promise(entry) for name, entry in remaining.items()}
        ready = {name: value for name, value in promises.items() if self._contenders[name].sibling not in remaining}
        for name, entry in remaining.items():
            if entry.sibling in ready:
                ready[entry.sibling] = max(ready[entry.sibling], promises[name])
        return max(ready, key=lambda name: (ready[name], -self._contenders[name].macs))

    def _measure(self, name: str) -> None:
        samples = self._taken[name]
        samples.extend(self._turn(name))
        table = self._contenders[name].table
        if table is not None:
            self._figures[name] = table.streaming(samples)
        if not self._exhaustive:
            if (fault := self._fault(name, self._is_full(name))) is not None:
                self._skipped[name] = fault
                self._faulty.add(name)
            self._drop_losers()
        self._progress(name, self._share_done())

    def _drop_losers(self, first: str | None = None) -> None:
        """Drop those who run and cannot win any more, and `first`, who has not run yet."""
        best_of = self._best_of_each()
        for name, samples in self._taken.items():
            if (not samples and name != first) or name in self._skipped or self._is_full(name):
                continue
            bound, (best, leader) = self._bound(name), best_of[self._is_plain(name)]
            if bound is not None and bound[0] < best:
                whose = "its fastest step" if samples else "its network alone"
                self._skipped[name] = (
                    f"{CANNOT_WIN}: {whose}, {1e3 * bound[1]:.1f} ms, allows {bound[0]:.3f} at most, "
                    f"{leader} reaches {best:.3f}"
                )

    def _call_back(self) -> bool:
        """Bring back those that dropped out against a figure which did not last; whether there were any."""
        best_of = self._best_of_each()
        returning = [
            name
            for name in self._skipped
            if name not in self._faulty
            and ((bound := self._bound(name)) is None or bound[0] >= best_of[self._is_plain(name)][0])
        ]
        for name in returning:
            del self._skipped[name]
        return bool(returning)

    def _best_of_each(self) -> dict[bool, tuple[float, str]]:
        """Highest predicted sLAmIoU among those that have not dropped out, and whose it is; -1 when there is none.

        By whether it is the best without compensation, or the best of all.
        """
        figures = {name: figure for name, figure in self._figures.items() if name not in self._skipped}
        best = {}
        for plain in (True, False):
            names = [name for name in figures if self._is_plain(name) or not plain]
            leader = max(names, key=lambda name: figures[name], default="")
            best[plain] = figures.get(leader, -1.0), leader
        return best

    def _is_plain(self, name: str) -> bool:
        return self._contenders[name].sibling is None

    def _bound(self, name: str) -> tuple[float, float] | None:
        """The most that `name` can reach, and the latency in seconds which says so; None where nothing does."""
        entry = self._contenders[name]
        samples = self._taken[name] or (self._taken[entry.sibling] if entry.sibling is not None else [])
        if entry.table is None or not samples:
            return None
        return entry.table.best_from(min(samples)), min(samples)

    def _is_full(self, name: str) -> bool:
        return len(self._taken[name]) >= self._samples

    def _share_done(self) -> float:
        done = sum(
            self._samples if name in self._skipped else min(len(samples), self._samples)
            for name, samples in self._taken.items()
        )
        return done / (self._samples * len(self._taken))

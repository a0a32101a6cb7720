"""How much slower than in the profile a configuration's steps are, and what that tells about another one's.

What slows one configuration down slows the others down in proportion, as a rule: heat does. A busy process on the same
core does not always: a network that leaves half of the core idle may hardly notice it, one that needs all of it takes
twice as long. What was seen when the loop changed from a slow one to a fast one therefore counts more, for a while.
"""

import math
from collections import deque
from dataclasses import dataclass, replace
from statistics import median

STEPS, MORE_STEPS = 5, 15
"""The median of the last few steps tells how slow they are: two stray ones say nothing. That of more steps is more
exact, and counts while the two are alike."""
ALIKE = 1.15
"""Factors that differ by less are alike."""
STALE_S = 2.0
"""When no frame came for so long, earlier steps say nothing about now."""
MEETING_STEPS = 15
"""The first steps of a configuration, which tell how it takes what made the loop change to it."""


class Slowdown:
    """The factor of a configuration's steps over the profile's, from the last few of them."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=MORE_STEPS)
        self._first: list[float] = []

    def add(self, factor: float) -> None:
        """A step took `factor` times the profile's latency."""
        self._last.append(factor)
        if len(self._first) < MEETING_STEPS:
            self._first.append(factor)

    @property
    def now(self) -> float | None:
        """The factor of now; None after too few steps."""
        if len(self._last) < STEPS:
            return None
        few, more = median(list(self._last)[-STEPS:]), median(self._last)
        return more if 1 / ALIKE < few / more < ALIKE else few

    @property
    def at_first(self) -> float | None:
        """The factor of the first `MEETING_STEPS` steps; None before they are over."""
        return median(self._first) if len(self._first) == MEETING_STEPS else None


@dataclass(frozen=True)
class Fall:
    """What is remembered of a configuration that the loop left because it was slow."""

    at_s: float
    """When."""
    patience_s: float
    """So long this counts."""
    before: float
    """Its factor before it became slow."""
    slow: float
    """Its factor when it was left."""
    beside: float | None = None
    """Factor of the configuration that runs instead, by its first steps; None before they are over."""

    @property
    def until_s(self) -> float:
        """When this counts no longer."""
        return self.at_s + self.patience_s

    def factor(self, running: float) -> float:
        """The expected factor while the running configuration has factor `running`: between that before the fall and
        that at the fall, as far as the running one has recovered; never less than `running`.
        """
        # One that a load hardly slows down does not tell when the load is gone.
        if self.beside is None or self.beside < ALIKE * self.before:
            return max(running, self.slow)
        share = math.log(running / self.before) / math.log(self.beside / self.before)
        return max(running, self.before * (self.slow / self.before) ** max(0.0, share))

    def met(self, beside: float | None) -> "Fall":
        """The same with the factor of the configuration that runs instead."""
        return replace(self, beside=beside)

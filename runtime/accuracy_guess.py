"""A guess of the accuracy table of a plan with several cuts, from those of plans with one cut.

The tokens that stop are the easy ones first, so what a cut costs depends on where it is and on which share of all
tokens has stopped by then: f_l(share), known from the plans that cut after layer l alone, piecewise linear, f_l(0) = 0.
A later cut, which takes the stopped share from s to s', costs f_l(s') - f_l(s); the costs add up. One factor for plans
of several cuts is fitted to those that were scored. The guess only ranks plans.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from edgeseg.token_plan import TokenPlan

NO_EVIDENCE = 0.3
"""Error of a guess before a plan of several cuts was scored, as a share of what a single cut costs."""


class AccuracyGuess:
    """Guesses tables, float64 of any shape, from scored ones.

    Args:
        scored: plan -> table; None, the whole network, is one of them, and at least one single cut after each
            layer of the plans.
    """

    def __init__(self, scored: Mapping[TokenPlan | None, np.ndarray]) -> None:
        self._scored = dict(scored)
        self._whole = scored[None]
        self._costs: dict[int, list[tuple[float, np.ndarray]]] = {}
        for plan, table in sorted(self._scored.items(), key=lambda entry: str(entry[0])):
            if plan is not None and len(plan.cuts) == 1:
                layer, share = plan.cuts[0]
                self._costs.setdefault(layer, []).append((share, self._whole - table))
        self._factor = 1.0
        self._factor, self.error = self._fitted()

    def table(self, plan: TokenPlan | None) -> np.ndarray:
        """The scored table where there is one, else the guess."""
        if plan in self._scored:
            return self._scored[plan]
        assert plan is not None
        return np.clip(self._whole - self._factor * self._drop(plan), 0.0, 1.0)

    def _drop(self, plan: TokenPlan) -> np.ndarray:
        stopped, total = 0.0, np.zeros_like(self._whole)
        for layer, proportion in plan.cuts:
            then = stopped + proportion * (1 - stopped)
            total = total + self._cost(layer, then) - self._cost(layer, stopped)
            stopped = then
        return total

    def _cost(self, layer: int, share: float) -> np.ndarray:
        """f_l at a share; beyond the last known one in the direction of the last two."""
        known = [(0.0, np.zeros_like(self._whole)), *sorted(self._costs[layer], key=lambda entry: entry[0])]
        for (low, before), (high, after) in pairwise(known):
            if share <= high or high == known[-1][0]:
                return before + (after - before) * (share - low) / (high - low)
        raise AssertionError("a layer without a single cut")

    def _fitted(self) -> tuple[float, float]:
        """The factor of plans of several cuts, and the error of a guess that is left with it, in mIoU."""
        pairs = [
            (float(self._drop(plan).mean()), float((self._whole - table).mean()))
            for plan, table in self._scored.items()
            if plan is not None and len(plan.cuts) > 1
        ]
        singles = [float(np.abs(cost).mean()) for costs in self._costs.values() for _, cost in costs]
        # Before any evidence: a part of what a single cut costs, in the middle; it goes on to count as two plans.
        assumed = NO_EVIDENCE * float(np.median(singles)) if singles else 0.0
        energy = sum(guessed**2 for guessed, _ in pairs)
        if not energy:
            return 1.0, assumed
        factor = float(np.clip(sum(guessed * found for guessed, found in pairs) / energy, 0.25, 4.0))
        left = sum((found - factor * guessed) ** 2 for guessed, found in pairs)
        return factor, float(np.sqrt((2 * assumed**2 + left) / (2 + len(pairs))))

"""Search for the token plan with the best latency-aware mIoU on a device at a frame rate, in few measurements.

Three ways: `exhaustive` measures every plan of a grid; `greedy` is the source's procedure [C 3.4.1]: one cut, the best
one fixed, a second cut, and so on until another no longer helps; `guided` measures the plan that looks best by a model
of the latency (`edgeseg.runtime.latency_model`) and a guess of the accuracy (`edgeseg.runtime.accuracy_guess`), both
refined by each measurement, until no plan that is left could win.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import numpy as np

from edgeseg.errors import InputError
from edgeseg.runtime.accuracy_guess import AccuracyGuess
from edgeseg.runtime.latency_model import LatencyModel
from edgeseg.runtime.plan_grid import PlanGrid
from edgeseg.runtime.plan_objective import Objective
from edgeseg.token_plan import TokenPlan

SEARCHES = ("guided", "greedy", "exhaustive")
SHARE_OF_THE_GRID = 5
"""A guided search measures at most one plan in this many, unless told otherwise."""
LEAST_GUIDED = 3
WORTH_IT = 0.001
"""A plan that could win by less than this share is not measured by the guided search."""
OPTIMISM = 1.0
"""Errors of the models that a plan may gain by in the guided search: more of it measures more."""
PATIENCE = 6
"""The guided search measures on until the best plan has held against this many others, whatever the models say."""
ENOUGH = 2 * PATIENCE
"""... and ends when it has held against this many: what could win by then is the noise of the scores."""
_JITTER_SAMPLES = 9


class Workbench(Protocol):
    """Where plans are measured and scored."""

    def latencies_s(self, plan: TokenPlan | None) -> Sequence[float] | np.ndarray:
        """One measurement on the device: latencies of a few steps, in seconds."""

    def tables(self, plan: TokenPlan | None) -> np.ndarray:
        """mIoU float64 `(W, K + 1)` at k = 0..K frames of delay, one row per way to move labels to the present; the
        first row is that of the labels as they come."""


@dataclass(frozen=True)
class Trial:
    """A plan that was measured and scored."""

    plan: TokenPlan | None
    latencies_s: np.ndarray
    miou: float
    """Without delay."""
    lamiou: float
    """By the objective's statistic."""
    way: int
    """The way to move labels that gives it."""
    predicted_s: float | None
    """Median latency that the model predicted before the measurement; None where there was no model yet."""

    @property
    def median_s(self) -> float:
        return float(np.median(self.latencies_s))

    @property
    def prediction_error(self) -> float | None:
        """Predicted over measured latency, minus 1."""
        return None if self.predicted_s is None else self.predicted_s / self.median_s - 1


@dataclass(frozen=True)
class SearchResult:
    """What a search did."""

    search: str
    trials: tuple[Trial, ...]
    """In the order of measurement; the first one is the whole network."""
    scored: int
    """Plans whose accuracy was asked for: off the device, beside the measurements on it."""
    grid_plans: int
    model: LatencyModel
    """Fitted to all measurements."""
    stopped: str
    """Why it ended."""

    @property
    def best(self) -> Trial:
        """The highest LAmIoU; of two alike the faster one."""
        return max(self.trials, key=lambda trial: (trial.lamiou, -trial.median_s))

    @property
    def prediction_errors(self) -> tuple[float, ...]:
        """Of the latencies that were predicted before they were measured."""
        return tuple(error for trial in self.trials if (error := trial.prediction_error) is not None)


def search_plans(
    search: str,
    grid: PlanGrid,
    workbench: Workbench,
    objective: Objective,
    *,
    budget: int | None = None,
    progress: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Look for the best plan of `grid`.

    Args:
        search: one of `SEARCHES`.
        budget: measurements at most, the one of the whole network among them; None: a fifth of the grid for a guided
            search, else as many as it takes.
        progress: called after each measurement.

    Raises:
        InputError: an unknown search, or a budget that is too small for it.
    """
    allowed = planned_measurements(search, grid, budget)
    run = _Run(grid, workbench, objective, allowed, progress or (lambda trial: None))
    stopped = {"guided": run.guided, "greedy": run.greedy, "exhaustive": run.exhaustive}[search]()
    return SearchResult(search, tuple(run.trials.values()), len(run.tables), len(grid), run.model(), stopped)


def planned_measurements(search: str, grid: PlanGrid, budget: int | None) -> int:
    """Measurements that a search makes at most.

    Raises:
        InputError: an unknown search, or the budget is too small for it.
    """
    if search not in SEARCHES:
        raise InputError(f"unknown search {search!r} | known: {', '.join(SEARCHES)}")
    singles = len(grid.single_cuts)
    most = len(grid)
    if search == "greedy":
        # Behind each cut one layer fewer is left for the next.
        most = 1 + sum(singles - n * singles // len(grid.layers) for n in range(grid.most_cuts))
    elif search == "guided":
        least = min(LEAST_GUIDED, most)
        most = max(least, most // SHARE_OF_THE_GRID) if budget is None else most
    least = {"exhaustive": most, "greedy": 1 + singles, "guided": min(LEAST_GUIDED, len(grid))}[search]
    if budget is not None and budget < least:
        raise InputError(
            f"--budget is too small | got {budget} measurements, a {search} search of these {len(grid)} plans needs at "
            f"least {least} | give more, fewer --layers or --proportions"
            + ("" if search == "guided" else ", or --search guided")
        )
    return most if budget is None else min(budget, most)


class _Run:
    """One search: what was measured and scored so far, and the ways to go on."""

    def __init__(
        self,
        grid: PlanGrid,
        workbench: Workbench,
        objective: Objective,
        budget: int,
        progress: Callable[[Trial], None],
    ) -> None:
        self.trials: dict[TokenPlan | None, Trial] = {}
        self.tables: dict[TokenPlan | None, np.ndarray] = {}
        self._grid, self._workbench, self._objective = grid, workbench, objective
        self._budget, self._progress = budget, progress
        self._measure(None)

    def model(self) -> LatencyModel:
        """Fitted to all measurements."""
        measured = {plan: trial.median_s for plan, trial in self.trials.items()}
        return LatencyModel.fit(self._grid.stack, measured)

    def exhaustive(self) -> str:
        for plan in self._grid.plans[1:]:
            self._measure(plan)
        return "every plan was measured"

    def greedy(self) -> str:
        fixed: tuple[tuple[int, float], ...] = ()
        for number in range(1, self._grid.most_cuts + 1):
            before = self._best()
            for cut in [single.cuts[0] for single in self._grid.single_cuts]:
                if cut[0] in dict(fixed):
                    continue
                plan = self._grid.same_as(TokenPlan(tuple(sorted((*fixed, cut)))))
                if plan in self.trials:
                    continue
                if self._is_spent:
                    return f"the budget of {self._budget} measurements is spent"
                self._measure(plan)
            best = self._best()
            if best.lamiou <= before.lamiou or best.plan is None:
                return f"cut {number} no longer helps"
            fixed = best.plan.cuts
        return f"it has {self._grid.most_cuts} cuts, the most allowed"

    def guided(self) -> str:
        for single in self._telling_cuts():
            self._score(single)
        self._measure(self._most_different())
        while not self._is_spent:
            if self._since_the_best >= ENOUGH:
                return f"the best plan held against {ENOUGH} others"
            plan = self._most_promising()
            if plan is None:
                return f"no other plan could win by {100 * WORTH_IT:g} % and more"
            # What its cuts cost alone was interpolated where it was not scored: it is looked at before the plan is.
            if not self._score_parts(plan):
                self._measure(plan)
        return f"the budget of {self._budget} measurements is spent"

    @property
    def _is_spent(self) -> bool:
        return len(self.trials) >= min(self._budget, len(self._grid))

    def _best(self) -> Trial:
        return max(self.trials.values(), key=lambda trial: trial.lamiou)

    def _score(self, plan: TokenPlan | None) -> np.ndarray:
        if plan not in self.tables:
            self.tables[plan] = self._workbench.tables(plan)
        return self.tables[plan]

    def _measure(self, plan: TokenPlan | None) -> None:
        predicted_s = self.model().predict_s(plan) if len(self.trials) > 1 else None
        latencies_s = np.asarray(self._workbench.latencies_s(plan), np.float64)
        tables = self._score(plan)
        lamiou, way = self._objective.best(tables, latencies_s)
        self.trials[plan] = Trial(plan, latencies_s, float(tables[0, 0]), lamiou, way, predicted_s)
        self._progress(self.trials[plan])

    def _telling_cuts(self) -> list[TokenPlan]:
        """After each layer the largest cut and the middle one: what the others cost is interpolated from them."""
        telling: list[TokenPlan] = []
        for _, plans in groupby(self._grid.single_cuts, key=lambda plan: plan.cuts[0][0]):
            cuts = list(plans)
            telling += dict.fromkeys((cuts[(len(cuts) - 1) // 2], cuts[-1]))
        return telling

    def _score_parts(self, plan: TokenPlan) -> int:
        """Score the cuts of `plan` alone, as far as they were not; how many these were."""
        parts = [part for cut in plan.cuts if (part := self._grid.same_as(TokenPlan((cut,)))) not in self.tables]
        for part in parts:
            self._score(part)
        return len(parts)

    def _most_different(self) -> TokenPlan | None:
        """The plan that computes the least: beside the whole network it tells the model the most."""
        return min(self._grid.plans, key=self._grid.stack.running_share)

    def _most_promising(self) -> TokenPlan | None:
        """The plan to measure next: the one with the highest predicted LAmIoU where that would win, else the one that
        could reach the most; None where none could win.

        Could: its latency lower and its accuracy higher than predicted by as much as predictions were wrong so far.
        """
        model, guess, jitter = self.model(), AccuracyGuess(self.tables), self._jitter()
        could_be = max(0.1, 1 - OPTIMISM * self._latency_error())
        expected: dict[TokenPlan | None, float] = {}
        reachable: dict[TokenPlan | None, float] = {}
        for plan in self._grid.plans:
            if plan not in self.trials:
                tables, latencies_s = guess.table(plan), model.predict_s(plan) * jitter
                expected[plan], _ = self._objective.best(tables, latencies_s)
                if plan not in self.tables:
                    tables = np.clip(tables + OPTIMISM * guess.error, 0, 1)
                reachable[plan], _ = self._objective.best(tables, latencies_s * could_be)
        to_beat = self._best().lamiou * (1 + WORTH_IT)
        for figures in (expected, reachable):
            plan = max(figures, key=lambda each: figures[each])
            if figures[plan] >= to_beat:
                return plan
        return plan if self._since_the_best < PATIENCE else None

    @property
    def _since_the_best(self) -> int:
        """Measurements since the best one."""
        return len(self.trials) - 1 - list(self.trials).index(self._best().plan)

    def _latency_error(self) -> float:
        """Relative error of predicted latencies; until it is known, 5 % in two measurements are assumed."""
        errors = [trial.prediction_error for trial in self.trials.values()]
        squares = [error**2 for error in errors if error is not None]
        return float(np.sqrt((2 * 0.05**2 + sum(squares)) / (2 + len(squares))))

    def _jitter(self) -> np.ndarray:
        """Samples over their median, of all measurements together: quantiles, in a fixed order that is not sorted."""
        pooled = np.concatenate([trial.latencies_s / trial.median_s for trial in self.trials.values()])
        quantiles = np.quantile(pooled, (np.arange(_JITTER_SAMPLES) + 0.5) / _JITTER_SAMPLES)
        return quantiles[np.random.default_rng(0).permutation(_JITTER_SAMPLES)]


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points (cost, value) that no other point beats in one without losing in the other; cheap first."""
    front: list[str] = []
    best = -np.inf
    for name, (_, value) in sorted(points.items(), key=lambda entry: (entry[1][0], -entry[1][1])):
        if value > best:
            front.append(name)
            best = value
    return front

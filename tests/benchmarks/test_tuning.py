"""The tuning benchmark's rows and its record."""

from pathlib import Path

import numpy as np

from benchmarks.tuning import Record, row
from edgeseg.runtime.latency_model import TokenStack
from edgeseg.runtime.plan_grid import PlanGrid
from edgeseg.runtime.plan_objective import Objective
from edgeseg.runtime.plan_search import search_plans
from edgeseg.token_plan import TokenPlan

GRID = PlanGrid((2, 4), (0.2, 0.4, 0.6), 2, TokenStack(64, 6))


class Device:
    """Fewer tokens are faster; every cut costs accuracy."""

    def __init__(self) -> None:
        self.asked = 0

    def latencies_s(self, plan: TokenPlan | None) -> np.ndarray:
        self.asked += 1
        return np.full(3, 0.1 * GRID.stack.running_share(plan))

    def tables(self, plan: TokenPlan | None) -> np.ndarray:
        drop = 0.0 if plan is None else 0.02 * sum(share for _, share in plan.cuts)
        return np.array([[0.5 - drop, 0.4 - drop, 0.3 - drop]])


def test_a_record_is_kept_so_that_nothing_is_measured_twice(tmp_path: Path) -> None:
    device = Device()
    first = search_plans("exhaustive", GRID, Record(device, tmp_path / "r.json"), Objective(15, 15))
    again = search_plans("exhaustive", GRID, Record(device, tmp_path / "r.json"), Objective(15, 15))
    assert device.asked == len(GRID)
    assert again.best.plan == first.best.plan


def test_a_row_says_how_far_a_search_is_behind_and_what_it_measured() -> None:
    everything = search_plans("exhaustive", GRID, Device(), Objective(15, 15))
    found = search_plans("guided", GRID, Device(), Objective(15, 15), budget=3)
    values = row(15, found, everything)
    assert (values["measured"], values["of the grid"]) == (3, "19 %")
    assert values["behind the best"] == f"{100 * (1 - found.best.lamiou / everything.best.lamiou):.2f} %"
    assert row(15, everything, everything)["target"] == "-"

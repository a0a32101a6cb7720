"""Searches on a made-up device and network whose figures are formulas, so that the best plan is known."""

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.latency_model import TokenStack
from edgeseg.runtime.plan_grid import PlanGrid
from edgeseg.runtime.plan_objective import Objective
from edgeseg.runtime.plan_search import pareto_front, planned_measurements, search_plans
from edgeseg.token_plan import TokenPlan

STACK = TokenStack(tokens=192, layers=12)
GRID = PlanGrid((3, 5, 7), (0.2, 0.4, 0.6, 0.8), 3, STACK)


def plan(text: str) -> TokenPlan:
    return TokenPlan.parse(text)


class MadeUp:
    """Latency by tokens, attention and cuts; accuracy falls with the cube of what has stopped, early layers more, and
    with the delay. Counts how often it is asked."""

    def __init__(self, whole_s: float = 0.110, fall: float = 0.1, ways: int = 1) -> None:
        self.whole_s, self.fall, self.ways = whole_s, fall, ways
        self.measured: list[TokenPlan | None] = []
        self.scored: list[TokenPlan | None] = []

    def latencies_s(self, cuts: TokenPlan | None) -> np.ndarray:
        self.measured.append(cuts)
        shares = STACK.per_layer(cuts) / STACK.tokens
        met = 0.0 if cuts is None else sum(shares[layer - 1] for layer, _ in cuts.cuts)
        middle = self.whole_s * (0.1 + 0.7 * shares.mean() + 0.2 * (shares**2).mean() + 0.012 * met)
        return middle * np.array([1.0, 1.02, 0.99, 1.01, 1.0, 1.03, 0.98])

    def tables(self, cuts: TokenPlan | None) -> np.ndarray:
        self.scored.append(cuts)
        stopped, miou = 0.0, 0.6
        for layer, proportion in () if cuts is None else cuts.cuts:
            then = stopped + proportion * (1 - stopped)
            # More than the sum of its parts: what the guess does not know.
            miou -= 0.2 * (then**3 - stopped**3) * (14 - layer) / 10 * (1 + 0.3 * stopped)
            stopped = then
        plain = miou * np.exp(-self.fall * np.arange(9))
        return np.array([plain, np.full(9, miou)][: self.ways])


def objective(fps: float = 15.0) -> Objective:
    return Objective(fps, 15.0)


@pytest.mark.parametrize("fps", [10, 15, 22, 30])
@pytest.mark.parametrize("whole_s", [0.06, 0.11, 0.19])
def test_guided_search_comes_within_half_a_percent_with_a_fifth_of_the_measurements(fps, whole_s):
    known = MadeUp(whole_s)
    highest = max(objective(fps).best(known.tables(each), known.latencies_s(each))[0] for each in GRID.plans)
    device = MadeUp(whole_s)
    found = search_plans("guided", GRID, device, objective(fps))
    assert 0.995 * highest <= found.best.lamiou <= highest
    assert len(device.measured) == len(found.trials) <= len(GRID) / 5
    assert len(device.scored) == found.scored < len(GRID) / 4


@pytest.mark.parametrize(("tokens", "proportions"), [(24, (0.3, 0.31, 0.32)), (4, (0.25, 0.3, 0.4))])
def test_guided_search_scores_cuts_that_stop_as_many_tokens_once(tokens, proportions):
    grid, device = PlanGrid((3, 5, 7), proportions, 2, TokenStack(tokens, layers=12)), MadeUp()
    result = search_plans("guided", grid, device, objective())
    assert result.best.plan in grid.plans
    assert len(device.scored) == len(set(device.scored)) == result.scored
    assert set(device.scored) <= set(grid.plans)


class Alike(MadeUp):
    """All plans are worth the same but for the noise of few frames."""

    def tables(self, cuts: TokenPlan | None) -> np.ndarray:
        noise = np.random.default_rng(len(str(cuts)) + sum(map(ord, str(cuts)))).normal(0, 0.002)
        return np.full((1, 9), 0.6 + noise)


def test_guided_search_ends_when_the_best_plan_has_held_against_many_others():
    result = search_plans("guided", GRID, Alike(), objective())
    since = len(result.trials) - 1 - result.trials.index(result.best)
    assert since == 12
    assert result.stopped == "the best plan held against 12 others"


def test_guided_search_leaves_cuts_unscored_that_it_has_no_use_for():
    grid = PlanGrid((3, 4, 5, 6, 7, 8, 9), (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), 1, STACK)
    device = MadeUp()
    search_plans("guided", grid, device, objective())
    assert len(device.scored) == len(set(device.scored)) < len(grid) / 2


def test_exhaustive_search_measures_every_plan_once():
    device = MadeUp()
    result = search_plans("exhaustive", GRID, device, objective())
    assert sorted(map(str, device.measured)) == sorted(map(str, GRID.plans))
    assert len(result.trials) == len(GRID) == 1 + 12 + 48 + 64


def test_greedy_search_fixes_the_best_cut_before_it_sweeps_the_next():
    device = MadeUp(0.19)
    result = search_plans("greedy", GRID, device, objective())
    first = max(result.trials[1:13], key=lambda trial: trial.lamiou).plan
    assert device.measured[:13] == [None, *GRID.single_cuts]
    assert all(set(first.cuts) < set(cuts.cuts) for cuts in device.measured[13:21])
    assert len(device.measured) in (21, 25)


def test_greedy_search_stops_when_a_cut_no_longer_helps():
    # Without a fall of accuracy with the delay nothing is gained by being fast.
    result = search_plans("greedy", GRID, MadeUp(fall=0.0), objective())
    assert result.best.plan is None
    assert result.stopped == "cut 1 no longer helps"
    assert len(result.trials) == 13


def test_guided_search_predicts_latencies_before_it_measures_them():
    errors = search_plans("guided", GRID, MadeUp(0.19), objective()).prediction_errors
    assert np.abs(errors[-3:]).max() < 0.03


def test_the_way_that_moves_labels_best_decides_with_what_it_adds_to_the_latency():
    cheap = Objective(15.0, 15.0, added_s=(0.0, 0.001))
    dear = Objective(15.0, 15.0, added_s=(0.0, 5.0))
    tables = np.array([[0.6, 0.5, 0.4], [0.6, 0.55, 0.3]])
    assert cheap.best(tables, np.array([0.03]))[1] == 1
    assert dear.best(tables, np.array([0.03]))[1] == 0


def test_the_budget_is_kept():
    device = MadeUp()
    result = search_plans("guided", GRID, device, objective(), budget=4)
    assert len(device.measured) == 4
    assert "budget of 4" in result.stopped


@pytest.mark.parametrize(
    ("search", "budget", "least"), [("exhaustive", 124, 125), ("greedy", 12, 13), ("guided", 2, 3)]
)
def test_a_budget_that_is_too_small_is_refused_before_anything_is_measured(search, budget, least):
    device = MadeUp()
    with pytest.raises(InputError, match=f"--budget is too small .* at least {least} "):
        search_plans(search, GRID, device, objective(), budget=budget)
    assert device.measured == []


def test_a_fifth_of_the_grid_is_the_budget_of_a_guided_search_by_default():
    assert planned_measurements("guided", GRID, None) == 25
    assert planned_measurements("greedy", GRID, None) == 1 + 12 + 8 + 4


@pytest.mark.parametrize(
    ("layers", "proportions", "cuts", "words"),
    [
        ((3, 12), (0.4,), 1, "layer out of range"),
        ((3,), (0.4, 1.0), 1, "proportion out of range"),
        ((3, 3), (0.4,), 1, "--layers names at least one value, each once"),
        ((3,), (), 1, "--proportions names at least one value"),
        ((), (0.4,), 1, r"--layers names no layer \| of a range the lower one comes first, as in 3-7"),
        ((3,), (0.0, 0.2), 1, "--proportions: proportion out of range . got 0, expected more than 0 and less than 1"),
        ((3,), (0.4, float("nan")), 1, "--proportions: proportion out of range . got nan"),
        ((3,), (1e-9, 0.4), 1, "--proportions: 1e-09 stops none of 192 tokens . use one above 1/192"),
        ((3, 5), (0.4,), 3, "--max-layers lies between"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(layers, proportions, cuts, words):
    with pytest.raises(InputError, match=words):
        PlanGrid(layers, proportions, cuts, STACK)


def test_proportions_that_stop_as_many_tokens_are_one_plan():
    # Of 192 tokens both 0.2 and 0.2000001 stop 38.
    grid = PlanGrid((3, 5), (0.2000001, 0.2, 0.4), 2, STACK)
    same = PlanGrid((3, 5), (0.2, 0.4), 2, STACK)
    assert grid.plans == same.plans
    assert [str(each) for each in grid.single_cuts] == ["3:0.2", "3:0.4", "5:0.2", "5:0.4"]


def test_second_cut_that_stops_nothing_makes_no_plan_of_its_own():
    # 0.8 leaves 2 of 8 tokens; 0.2 of those is none, so that 3:0.8,5:0.2 is 3:0.8.
    grid = PlanGrid((3, 5), (0.2, 0.8), 2, TokenStack(8, 12))
    assert [str(each) for each in grid.plans if each is not None and len(each.cuts) == 2] == [
        "3:0.2,5:0.2",
        "3:0.2,5:0.8",
        "3:0.8,5:0.8",
    ]


@pytest.mark.parametrize("search", ["greedy", "guided", "exhaustive"])
def test_no_plan_is_measured_under_two_names(search):
    stack = TokenStack(8, 12)
    grid = PlanGrid((3, 5, 7), (0.2, 0.25, 0.6, 0.8), 3, stack)
    device = MadeUp()
    search_plans(search, grid, device, objective())
    running = [tuple(stack.per_layer(each)) for each in device.measured]
    assert len(set(running)) == len(running)
    assert set(device.measured) <= set(grid.plans)


def test_greedy_search_stands_in_for_a_cut_that_its_grid_has_under_another_name():
    # Of 8 tokens 0.3 stops 2 as 0.25 does, of the 4 that 0.5 leaves 1 as 0.25 does: 3:0.5,5:0.3 is 3:0.5,5:0.25.
    grid = PlanGrid((3, 5), (0.25, 0.3, 0.5), 2, TokenStack(8, 12))
    assert grid.same_as(plan("3:0.5,5:0.3")) == plan("3:0.5,5:0.25")
    with pytest.raises(InputError, match=r"plan 3:0\.5,7:0\.5 is not in the grid"):
        grid.same_as(plan("3:0.5,7:0.5"))


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="unknown search 'random'"):
        search_plans("random", GRID, MadeUp(), objective())
    with pytest.raises(InputError, match="unknown statistic 'best'"):
        Objective(15.0, 15.0, statistic="best")


def test_front_holds_what_nothing_else_beats():
    points = {"slow": (9.0, 0.7), "worse": (5.0, 0.4), "fast": (2.0, 0.3), "middle": (4.0, 0.5), "same": (4.0, 0.5)}
    assert pareto_front(points) == ["fast", "middle", "slow"]

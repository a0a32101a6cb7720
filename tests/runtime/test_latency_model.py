"""The latency model: token counts per layer, fitting, and what it says before it can know."""

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.latency_model import LatencyModel, TokenStack
from edgeseg.token_plan import TokenPlan

STACK = TokenStack(tokens=100, layers=10)


def plan(text: str) -> TokenPlan:
    return TokenPlan.parse(text)


def latency_s(cuts: TokenPlan | None) -> float:
    """The law that the model assumes, with attention and a fixed part."""
    shares = STACK.per_layer(cuts) / STACK.tokens
    met = 0.0 if cuts is None else sum(shares[layer - 1] for layer, _ in cuts.cuts)
    return 0.010 + 0.060 * shares.mean() + 0.030 * (shares**2).mean() + 0.002 * met


def test_tokens_stop_behind_their_layer():
    assert STACK.per_layer(plan("3:0.4,5:0.5")).tolist() == [100, 100, 100, 60, 60, 30, 30, 30, 30, 30]
    assert STACK.running_share(None) == 1.0


def test_other_plans_are_predicted_from_six_measurements():
    measured = [None, *map(plan, ("3:0.8", "7:0.4", "1:0.3", "3:0.5,6:0.5", "2:0.6"))]
    model = LatencyModel.fit(STACK, {each: latency_s(each) for each in measured})
    for held_out in map(plan, ("5:0.6", "3:0.4,5:0.4,7:0.4", "8:0.8", "1:0.2,9:0.2")):
        assert model.predict_s(held_out) == pytest.approx(latency_s(held_out), rel=0.01)


def test_latency_follows_the_tokens_when_only_the_whole_network_is_known():
    model = LatencyModel.fit(STACK, {None: 0.1})
    assert model.predict_s(None) == pytest.approx(0.1)
    assert model.predict_s(plan("5:0.5")) == pytest.approx(0.075)


def test_no_coefficient_is_negative_however_odd_the_measurements():
    odd = {None: 0.1, plan("3:0.4"): 0.2, plan("3:0.8"): 0.02, plan("5:0.4"): 0.3}
    assert min(LatencyModel.fit(STACK, odd).coefficients) >= 0


def test_a_cut_costs_by_the_tokens_that_it_meets():
    cuts_alone = LatencyModel(STACK, 0.1, (0.0, 0.0, 0.0, 1.0))
    assert cuts_alone.predict_s(None) == 0.0
    assert cuts_alone.predict_s(plan("3:0.4")) == pytest.approx(0.1)
    assert cuts_alone.predict_s(plan("3:0.4,5:0.5")) == pytest.approx(0.1 * (1 + 0.6))


def test_noise_of_one_percent_stays_noise_of_about_one_percent():
    random = np.random.default_rng(0)
    names = [None, *map(plan, ("3:0.8", "7:0.4", "1:0.3", "3:0.5,6:0.5", "2:0.6", "4:0.4", "5:0.8", "3:0.2"))]
    model = LatencyModel.fit(STACK, {each: latency_s(each) * random.normal(1, 0.01) for each in names})
    assert model.predict_s(plan("3:0.4,5:0.4")) == pytest.approx(latency_s(plan("3:0.4,5:0.4")), rel=0.025)


@pytest.mark.parametrize("measured", [{plan("3:0.4"): 0.1}, {None: 0.0}, {None: 0.1, plan("3:0.4"): float("inf")}])
def test_measurements_that_say_nothing_are_refused(measured):
    with pytest.raises(InputError, match="a latency model needs"):
        LatencyModel.fit(STACK, measured)

"""The accuracy guess: exact where it was scored, additive in the share of tokens that has stopped elsewhere."""

import numpy as np
import pytest

from edgeseg.runtime.accuracy_guess import AccuracyGuess
from edgeseg.token_plan import TokenPlan


def plan(text: str) -> TokenPlan:
    return TokenPlan.parse(text)


SINGLES = {
    None: np.array([0.60, 0.50]),
    plan("3:0.4"): np.array([0.58, 0.48]),
    plan("3:0.8"): np.array([0.50, 0.40]),
    plan("5:0.4"): np.array([0.59, 0.49]),
    plan("5:0.8"): np.array([0.55, 0.45]),
}


def test_scored_tables_are_given_back_as_they_are():
    guess = AccuracyGuess(SINGLES)
    assert guess.table(plan("3:0.8")).tolist() == [0.50, 0.40]
    assert guess.table(None).tolist() == [0.60, 0.50]


def test_a_second_cut_costs_what_its_layer_costs_from_one_stopped_share_to_the_next():
    # After 3:0.4 and 5:0.4, 0.64 of the tokens have stopped: f5(0.64) - f5(0.4) = 0.034 - 0.01.
    table = AccuracyGuess(SINGLES).table(plan("3:0.4,5:0.4"))
    assert table == pytest.approx(np.array([0.60, 0.50]) - 0.02 - (0.034 - 0.01))


def test_beyond_the_largest_proportion_the_last_slope_goes_on():
    # 0.8 and then 0.8 of the rest: 0.96 have stopped; f5 rises by 0.1 per share from 0.4 on.
    table = AccuracyGuess(SINGLES).table(plan("3:0.8,5:0.8"))
    assert table == pytest.approx(np.array([0.60, 0.50]) - 0.10 - 0.1 * (0.96 - 0.8))


def test_scored_plans_of_two_cuts_correct_the_others():
    first = AccuracyGuess(SINGLES)
    drop = np.array([0.60, 0.50]) - first.table(plan("3:0.4,5:0.4"))
    second = AccuracyGuess({**SINGLES, plan("3:0.4,5:0.4"): np.array([0.60, 0.50]) - 2 * drop})
    other = plan("3:0.8,5:0.4")
    assert SINGLES[None] - second.table(other) == pytest.approx(2 * (SINGLES[None] - first.table(other)))


def test_guesses_stay_scores():
    steep = {None: np.array([0.3]), plan("3:0.2"): np.array([0.1]), plan("5:0.2"): np.array([0.1])}
    assert AccuracyGuess(steep).table(plan("3:0.2,5:0.2")).tolist() == [0.0]


def test_the_error_falls_when_guesses_turn_out_right():
    first = AccuracyGuess(SINGLES)
    right = {each: first.table(each) for each in map(plan, ("3:0.4,5:0.4", "3:0.4,5:0.8", "3:0.8,5:0.4"))}
    assert AccuracyGuess({**SINGLES, **right}).error < 0.7 * first.error

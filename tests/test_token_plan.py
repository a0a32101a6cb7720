"""Token plans: reading, names, counts, and what is refused."""

import json

import numpy as np
import pytest

from edgeseg.config import Configuration
from edgeseg.errors import InputError
from edgeseg.token_plan import PUBLISHED_PLANS, TokenPlan


def test_plan_is_read_written_and_named() -> None:
    plan = TokenPlan.parse("3:0.4, 5:.25")
    assert plan.cuts == ((3, 0.4), (5, 0.25))
    assert str(plan) == "3:0.4,5:0.25"
    assert plan.name == "3-0.4_5-0.25"
    assert TokenPlan.parse(str(plan)) == plan


@pytest.mark.parametrize("proportion", [1 / 3, 0.33333333333, 0.4000001, 0.9999996, 1e-9, 0.1 + 0.2, 2**-40])
def test_every_digit_of_a_plan_is_kept_when_it_is_written(proportion: float) -> None:
    plan = TokenPlan(((3, 0.4), (5, proportion)))
    assert TokenPlan.parse(str(plan)) == plan
    knobs = Configuration("segmenter_ti", (192, 256), method="pause", plan=plan)
    assert Configuration.from_dict(json.loads(json.dumps(knobs.as_dict()))) == knobs


def test_plans_that_differ_in_a_late_digit_have_names_that_differ() -> None:
    names = [TokenPlan.parse(f"3:{text}").name for text in ("0.4", "0.4000001", "0.40000001")]
    assert names == ["3-0.4", "3-0.4000001", "3-0.40000001"]


def test_proportions_of_numpy_are_written_like_any_other() -> None:
    assert str(TokenPlan(((3, np.float64(0.4)),))) == "3:0.4"


def test_counts_are_of_the_tokens_still_running() -> None:
    # 1024 - int(409.6) = 615; 615 - int(246.0) = 369; 369 - int(147.6) = 222
    assert TokenPlan.parse("3:0.4,5:0.4,7:0.4").counts(1024, 12) == {3: 615, 5: 369, 7: 222}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3:0.005", r"plan 3:0.005 stops none of 192 tokens after layer 3 \| use a proportion above 1/192 there"),
        ("3:0.99,5:0.4", "plan 3:0.99,5:0.4 stops none of 2 tokens after layer 5"),
    ],
)
def test_plan_with_a_layer_that_stops_no_token_is_refused_for_these_tokens(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TokenPlan.parse(text).check_stops(192, 12)


def test_plan_whose_every_layer_stops_a_token_is_taken() -> None:
    TokenPlan.parse("3:0.0053,5:0.0053").check_stops(192, 12)


def test_published_plans_are_the_thirteen_of_the_source() -> None:
    assert len(PUBLISHED_PLANS) == 13
    assert str(PUBLISHED_PLANS[-1]) == "3:0.4,5:0.4,7:0.4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not readable .* expected LAYER:PROPORTION"),
        ("3", "is not readable"),
        ("three:0.4", "is not readable"),
        ("0:0.4", "layer out of range"),
        ("-1:0.4", "layer out of range"),
        ("3:0", "plan 3:0: proportion out of range .* got 0 after layer 3"),
        ("3:1", "proportion out of range .* no token would be left"),
        ("3:1.5", "proportion out of range"),
        ("3:nan", "proportion out of range"),
        ("5:0.4,3:0.4", "layers do not rise"),
        ("3:0.4,3:0.4", "layers do not rise"),
    ],
)
def test_bad_plan_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TokenPlan.parse(text)


@pytest.mark.parametrize("layer", [12, 13])
def test_layer_that_the_encoder_has_not_before_its_last_is_refused(layer: int) -> None:
    with pytest.raises(InputError, match=rf"got {layer}, expected 1 to 11 for an encoder of 12 layers"):
        TokenPlan.parse(f"{layer}:0.4").counts(1024, 12)


def test_configuration_keeps_its_plan_through_its_dictionary_and_name() -> None:
    knobs = Configuration("segmenter_ti", (192, 256), method="pause", plan=TokenPlan.parse("3:0.4,5:0.4"))
    assert knobs.name == "segmenter_ti_192x256_pause3-0.4_5-0.4"
    assert knobs.as_dict()["plan"] == "3:0.4,5:0.4"
    assert Configuration.from_dict(knobs.as_dict()) == knobs


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"method": "pause"}, "method and plan go together"),
        ({"plan": "3:0.4"}, "method and plan go together"),
        ({"method": "paws", "plan": "3:0.4"}, "unknown method 'paws' .* known: pause"),
        ({"method": "pause", "plan": "3:2"}, "proportion out of range"),
        ({"method": "pause", "plan": 3}, "a configuration is not readable"),
    ],
)
def test_configuration_with_a_plan_that_does_not_fit_is_refused(knobs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Configuration.from_dict({"network": "segmenter_ti", "size_hw": [192, 256], **knobs})

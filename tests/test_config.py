import pytest

from edgeseg.config import Configuration
from edgeseg.errors import InputError

CWM = Configuration("swiftnet_r18", (256, 512), width=0.5, rho=0.25, cwm_form="split", labels_stride=4)


def test_name_lists_the_knobs_that_are_not_at_their_default():
    assert CWM.name == "swiftnet_r18_256x512_w0.5_rho0.25-split_s4"
    assert Configuration("net", (64, 96)).name == "net_64x96"


def test_configuration_survives_the_round_trip_through_json_values():
    assert Configuration.from_dict(CWM.as_dict()) == CWM


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"size_hw": (16, 64)}, "at least 32 x 32"),
        ({"width": 0}, "width lies in"),
        ({"rho": 1.5, "cwm_form": "split"}, "rho lies in"),
        ({"rho": 0.5}, "go together"),
        ({"cwm_form": "concat"}, "go together"),
        ({"rho": 0.5, "cwm_form": "naive"}, "unknown cwm_form"),
        ({"precision": "fp7"}, "unknown precision"),
        ({"state_dtype": "int8"}, "unknown state_dtype"),
        ({"state_dtype": "fp16", "input_frames": 2}, "state_dtype fp16 is for masked networks"),
        ({"input_frames": 3}, "input_frames is 1 or 2"),
        ({"target_offset": -1}, "must not be negative"),
        ({"labels_stride": 0}, "labels_stride"),
    ],
)
def test_knob_is_refused_when_out_of_range(knobs, message):
    with pytest.raises(InputError, match=message):
        Configuration(**{"network": "net", "size_hw": (64, 64), **knobs})


def test_unknown_knob_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(InputError, match=r"unknown knobs spline \| known: .*labels_stride"):
        Configuration.from_dict({"network": "net", "size_hw": [64, 64], "spline": 1})


@pytest.mark.parametrize(
    ("knobs", "stateful"), [({}, False), ({"input_frames": 2}, True), ({"rho": 0, "cwm_form": "concat"}, True)]
)
def test_stateful_says_whether_a_step_depends_on_earlier_frames(knobs, stateful):
    assert Configuration("net", (64, 64), **knobs).stateful is stateful

"""The benchmark of motion compensation, on videos that tests can afford."""

import numpy as np
import pytest

from benchmarks import compensation as benchmark
from edgeseg.classes import CAMVID
from edgeseg.config import Compensation
from edgeseg.data.street import StreetDataset


@pytest.fixture(scope="module")
def street():
    """Sixteen frames of a street at 15 Hz."""
    video = StreetDataset((180, 240), videos=(1, 1, 1), frames=(16, 16, 16)).videos("val")[0]
    return benchmark.Recording.read(video)


def test_true_labels_come_closer_to_the_present_when_they_are_moved(street):
    knobs = [Compensation("none"), Compensation(divisor=1)]
    late, moved = benchmark.true_label_rows("street", [street], knobs)
    assert (late["compensation"], moved["compensation"]) == ("none", "late-warp+extrapolate_dis-ultrafast_d1")
    assert all(moved[f"k={k}"] > late[f"k={k}"] for k in benchmark.OFFSETS)


def test_none_scores_the_labels_as_they_were(street):
    counts = benchmark.late_scores(street, street.labels, Compensation("none"), [3], CAMVID)[3].counts
    late, present = np.stack(street.labels[1:-3]), np.stack(street.labels[4:])
    counted = (late != CAMVID.ignore_value) & (present != CAMVID.ignore_value)
    assert counts.sum() == counted.sum()
    assert np.trace(counts) == (counted & (late == present)).sum()


def test_share_given_back_is_of_the_latency_tax(street):
    row = benchmark.prediction_rows(street, street.labels, Compensation(divisor=1))[0]
    tax, back = row["k=0"] - row["late"], row["moved"] - row["late"]
    assert row["k=0"] == 1
    assert float(row["given back"].removesuffix(" %")) == pytest.approx(100 * back / tax, abs=1)


def test_cost_is_measured_in_turns_of_both_ways(street):
    seconds = benchmark.cost(street.frames_rgb, street.labels[0], Compensation(), rounds=3)
    assert {name: len(values) for name, values in seconds.items()} == {"compensator": 3, "plain": 3}

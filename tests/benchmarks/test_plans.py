"""The benchmark of token plans, on the shipped bundle and on made-up scores."""

from dataclasses import replace

import pytest

from benchmarks import plans as benchmark
from edgeseg.bundle import Bundle
from edgeseg.errors import InputError
from edgeseg.shipped import bundle_path


@pytest.fixture
def small() -> Bundle:
    """The fastest configuration of the shipped bundle alone."""
    bundle = Bundle.open(bundle_path("shipped:street"))
    return replace(bundle, configurations=bundle.configurations[-1:])


def test_row_has_the_bundles_accuracy_and_a_measured_latency(small):
    (row,) = benchmark.plan_rows(small, fps=30.0, threads=1, samples=5)
    assert (row["method"], row["plan"]) == ("none", "none")
    assert row["mIoU"] == round(small.configurations[0].accuracy.miou[0], 4)
    assert 0 < row["min ms"] <= row["p50 ms"]


def test_bundle_without_accuracy_is_refused(small):
    bare = replace(small, configurations=(replace(small.configurations[0], accuracy=None),))
    with pytest.raises(InputError, match="no accuracy table"):
        benchmark.plan_rows(bare, fps=30.0, threads=1, samples=5)


def test_plans_that_lose_are_named():
    scores = {("pause", "3:0.2"): 0.5, ("pause", "5:0.8"): 0.4, ("pause-random", "3:0.2"): 0.4,
              ("pause-random", "5:0.8"): 0.4, ("pause", "3:0.4"): 0.1}  # fmt: skip
    rows = [{"method": method, "plan": plan, "mIoU": miou} for (method, plan), miou in scores.items()]
    assert benchmark.wins(rows) == "pause is above pause-random at 1 of 2 plans, not at 5:0.8"
